'use strict';
// One set-up at a time: a lock folder (proper-lockfile) that a process which died leaves to turn stale.
const { mkdirSync } = require('node:fs');
const path = require('node:path');
const { setTimeout: delay } = require('node:timers/promises');
const { lock } = require('proper-lockfile');

// Longer than anything that keeps the event loop from renewing the lock.
const STALE_MS = 30_000;
const POLL_MS = 500;

/**
 * Runs `work(waited)` while this process holds the lock `name` in `folder`; `waited` tells whether another held it
 * before, so that what that one made can be used. `onWait` is called once if there is another.
 */
async function withLock(folder, name, onWait, work) {
  mkdirSync(folder, { recursive: true });
  let lose;
  const lost = new Promise((_resolve, reject) => (lose = reject));
  lost.catch(() => undefined);
  let release;
  let waited = false;
  while (release === undefined) {
    try {
      release = await lock(path.join(folder, name), {
        realpath: false,
        stale: STALE_MS,
        update: 5_000,
        onCompromised: (error) =>
          lose(new Error(`another set-up took over (${error.message}); run it again`)),
      });
    } catch (error) {
      if (error.code !== 'ELOCKED') throw error;
      if (!waited) onWait();
      waited = true;
      await delay(POLL_MS);
    }
  }
  try {
    return await Promise.race([work(waited), lost]);
  } finally {
    await release().catch(() => undefined); // a lock that was lost is not ours to release
  }
}

module.exports = { withLock };
