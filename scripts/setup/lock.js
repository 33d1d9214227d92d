'use strict';
// One set-up at a time: a lock (lib/hub/lock.ts) that a process which died leaves to turn stale.
const { mkdirSync } = require('node:fs');
const path = require('node:path');
const { setTimeout: delay } = require('node:timers/promises');

// Longer than anything that keeps the event loop from renewing the lock.
const STALE_MS = 30_000;
const POLL_MS = 500;

/**
 * Runs `work(waited)` while this process holds the lock `name` in `folder`; `waited` tells whether another held it
 * before, so that what that one made can be used. `onWait` is called once if there is another.
 */
async function withLock(folder, name, onWait, work) {
  mkdirSync(folder, { recursive: true });
  // Only here: of a clone, TypeScript is compiled first.
  const { tryLock } = require('../../dist/hub/lock');
  let held;
  let waited = false;
  while ((held = await tryLock(path.join(folder, name), STALE_MS)) === null) {
    if (!waited) onWait();
    waited = true;
    await delay(POLL_MS);
  }
  const lost = new Promise((_resolve, reject) => {
    held.lost.addEventListener('abort', () =>
      reject(new Error(`another set-up took over: ${held.lost.reason.message}`)),
    );
  });
  try {
    return await Promise.race([work(waited), lost]);
  } finally {
    await held.release();
  }
}

module.exports = { withLock };
