/** Lines of a stream of text, as they come. */
import { StringDecoder } from 'node:string_decoder';

import { makeError } from '../errors';
import { onAbort, throwIfAborted } from '../tensor/abort';

/** The longest path of Linux has 4,096 bytes. */
const LONGEST_LINE = 64 * 1024;

/**
 * Lines that are not empty, without their ends.
 *
 * @throws (rejects) ERR_SENET_DATA_FORMAT (a line of more than 64 KiB), ERR_SENET_ABORTED, also while nothing comes
 */
export async function* linesOf(
  input: AsyncIterable<string | Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<string> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  let begun = false;
  const stop = signal && onAbort(signal, () => destroy(input));
  try {
    throwIfAborted(signal);
    for await (const piece of input) {
      rest += typeof piece === 'string' ? piece : decoder.write(Buffer.from(piece));
      // A byte-order mark is none of the first path.
      if (!begun) rest = rest.replace(/^\ufeff/, '');
      begun ||= rest !== '';
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > LONGEST_LINE)
        throw makeError(
          'ERR_SENET_DATA_FORMAT',
          `a list of images: expected a path in each line, found one of ${rest.length} characters`,
        );
      for (const line of lines) yield* shown(line);
    }
    throwIfAborted(signal);
    yield* shown(rest + decoder.end());
  } catch (error) {
    throwIfAborted(signal); // a stream that was destroyed says something else
    throw error;
  } finally {
    stop?.();
  }
}

function* shown(line: string): Generator<string> {
  const path = line.endsWith('\r') ? line.slice(0, -1) : line;
  if (path !== '') yield path;
}

/** So that whoever waits for the next piece waits no longer. */
function destroy(input: AsyncIterable<unknown>): void {
  const { destroy: end } = input as { destroy?: () => void };
  if (typeof end === 'function') end.call(input);
}
