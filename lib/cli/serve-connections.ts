/** The connections of a server, which it waits for when it closes. Knows no request. */
import type { Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout } from 'node:timers';

/**
 * What is open on a server. Node closes those connections that are idle when the server closes, and then waits: for one on
 * which nothing was ever asked (a browser opens them in advance, a balancer to see whether it can), for one whose last
 * request ends later, and for a caller who does not read his answer.
 */
export class Connections {
  readonly #open = new Set<Socket>();
  readonly #answering = new Set<ServerResponse>();
  #isEnding = false;

  constructor(server: Server) {
    server.on('connection', (socket: Socket) => {
      if (this.#isEnding) socket.destroy();
      this.#open.add(socket);
      socket.on('close', () => this.#open.delete(socket));
    });
    server.on('request', (_request, response: ServerResponse) => {
      this.#answering.add(response);
      response.on('close', () => {
        this.#answering.delete(response);
        this.#endIfDone();
      });
    });
  }

  /**
   * Ends all when what is asked is answered, or when the time is over.
   *
   * @param limit - milliseconds
   */
  end(limit: number): void {
    this.#isEnding = true;
    this.#endIfDone();
    setTimeout(() => this.#destroy(), limit).unref();
  }

  #endIfDone(): void {
    if (this.#isEnding && this.#answering.size === 0) this.#destroy();
  }

  #destroy(): void {
    // What was written still goes out.
    for (const socket of this.#open) socket.destroySoon();
  }
}
