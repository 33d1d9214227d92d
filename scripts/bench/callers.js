'use strict';
// Callers of a server who ask at a rate of theirs, whatever becomes of what they asked before: evenly, one after the other.
// (autocannon's rate is no such thing: each of its connections sends what is its share of a second at the second's
// beginning, as fast as it is answered, and then waits for the next.)
const http = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');

/** A rate is kept by sending what is due every so many milliseconds. */
const TICK = 5;

/** Sends images and counts what comes back. */
class Callers {
  #agent = new http.Agent({ keepAlive: true });
  #port;
  #body;
  #path;
  /** Milliseconds of each answer with status 200. */
  times = [];
  /** Of the others: by status, or 'left', or the code of an error. */
  others = {};
  #under = new Set();

  constructor(port, body, path = '/') {
    this.#port = port;
    this.#body = body;
    this.#path = path;
  }

  /** One request; gives its status. @param patience - milliseconds after which the caller hangs up */
  send(patience) {
    const start = performance.now();
    const answer = new Promise((resolve) => {
      const request = http.request({
        ...{ host: '127.0.0.1', port: this.#port, path: this.#path, method: 'POST', agent: this.#agent },
        headers: { 'content-type': 'image/jpeg', 'content-length': this.#body.length },
      });
      const timer = patience && setTimeout(() => request.destroy(new Error('left')), patience);
      const end = (status) => {
        clearTimeout(timer);
        resolve(status);
      };
      request.on('response', (response) => {
        response.resume();
        response.on('end', () => end(response.statusCode));
        response.on('error', (error) => end(error.code ?? error.message));
      });
      request.on('error', (error) => end(error.code ?? error.message));
      request.end(this.#body);
    }).then((status) => {
      this.#under.delete(answer);
      if (status === 200) this.times.push(performance.now() - start);
      else this.others[status] = (this.others[status] ?? 0) + 1;
      return status;
    });
    this.#under.add(answer);
    return answer;
  }

  /** Waits for what is under way, and closes the connections. */
  async end() {
    await Promise.all(this.#under);
    this.#agent.destroy();
  }
}

/** So many requests a second, whatever becomes of them. */
async function keepRate(callers, seconds, rate, patience) {
  const start = performance.now();
  let sent = 0;
  for (let now = 0; now < 1000 * seconds; now = performance.now() - start) {
    for (; sent < (rate * now) / 1000; sent++) void callers.send(patience);
    await sleep(TICK);
  }
}

module.exports = { Callers, keepRate };
