'use strict';
// The soak of `npm run bench:serve -- --soak MINUTES`.
const http = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');
const { median } = require('./peers');

/** Everything at once that a server meets, and worse. @param player - the server's process */
async function soak(player, image, seconds) {
  const until = Date.now() + 1000 * seconds;
  const counts = { good: 0, aborted: 0, garbage: 0, slow: 0, large: 0 };
  /** What should not have come, by kind and answer. */
  const wrong = {};
  const send = (body, { abortAfter, pause } = {}) =>
    new Promise((resolve) => {
      const request = http.request(
        {
          host: '127.0.0.1',
          port: player.port,
          path: '/classify',
          method: 'POST',
          headers: { 'content-type': 'image/jpeg' },
        },
        (response) =>
          response
            .resume()
            .on('end', () => resolve(response.statusCode))
            .on('error', () => resolve('cut')),
      );
      request.on('error', () => resolve('error'));
      // One that was destroyed between two events has neither.
      request.on('close', () => resolve('cut'));
      request.setTimeout(40_000, () => request.destroy(resolve('unanswered')));
      if (abortAfter !== undefined) setTimeout(() => request.destroy(), abortAfter);
      if (pause === undefined) request.end(body);
      else {
        request.write(body.subarray(0, 1000));
        setTimeout(() => request.end(body.subarray(1000)), pause);
      }
    });
  const expect = (kind, right) => (status) => {
    counts[kind]++;
    if (right.includes(status)) return;
    const what = `${kind}: ${status}`;
    wrong[what] = (wrong[what] ?? 0) + 1;
  };
  const forEver = async (work) => {
    while (Date.now() < until && !player.gone) await work();
  };
  const large = Buffer.alloc(25e6);
  const garbage = () =>
    Buffer.concat([image.subarray(0, Math.random() * 500), Buffer.from('garbage'.repeat(50))]);
  const memory = [];
  const watch = (async () => {
    while (Date.now() < until && !player.gone) {
      memory.push((await player.ask('delay')).rss / 2 ** 20);
      await sleep(Math.min(5000, 200 * seconds));
    }
  })();
  await Promise.all([
    ...Array.from({ length: 12 }, () => forEver(async () => expect('good', [200])(await send(image)))),
    ...Array.from({ length: 4 }, () =>
      forEver(async () =>
        expect('aborted', [200, 'error', 'cut'])(await send(image, { abortAfter: 30 * Math.random() })),
      ),
    ),
    ...Array.from({ length: 2 }, () =>
      forEver(async () => expect('garbage', [400, 413])(await send(garbage()))),
    ),
    ...Array.from({ length: 4 }, () =>
      forEver(async () => expect('slow', [200])(await send(image, { pause: 2000 * Math.random() }))),
    ),
    forEver(async () => {
      expect('large', [413, 'error', 'cut'])(await send(large));
      await sleep(200);
    }),
    watch,
  ]);
  // What was aborted last may still be decoded; the question itself is one that runs.
  let left = Infinity;
  for (let wait = 0; wait < 100 && left > 0; wait++) {
    const text = await (await fetch(`http://127.0.0.1:${player.port}/metrics`)).text();
    left = Number(/^senet_requests_running (\d+)$/m.exec(text)?.[1]) - 1;
    if (left > 0) await sleep(100);
  }
  player.stop();
  const third = (part) => median(memory.slice((part * memory.length) / 3, ((part + 1) * memory.length) / 3));
  console.log(JSON.stringify({ ...counts, wrong }));
  console.log(
    `memory: ${third(0).toFixed(0)} MB in the first third, ${third(1).toFixed(0)}, ${third(2).toFixed(0)} in the last; ${left} requests left over; crashed: ${player.gone ?? false}`,
  );
  process.exitCode = Object.keys(wrong).length + left > 0 || player.gone ? 1 : 0;
}

module.exports = { soak };
