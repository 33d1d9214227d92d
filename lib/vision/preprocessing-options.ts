/**
 * Which record a model's images are prepared by: what a user or a file gives, checked, over what is usual, for the channels
 * of the network. `preprocessing` executes it.
 */
import { makeError } from '../errors';
import type { Preprocessing } from '../models/preprocessing-record';
import { checkInteger, describe } from '../tensor/options';
import {
  integer,
  isListOf,
  matching,
  nullOr,
  oneOf,
  orElse,
  readOptions,
  unchecked,
  type Rule,
} from '../tensor/rules';

/** What a record may make of the channels. */
const CHANNELS: readonly Preprocessing['channels'][] = ['rgb', 'grey', 'grey-repeated'];

/** Channels of the input that a record makes. */
export function recordChannels({ channels }: Pick<Preprocessing, 'channels'>): 1 | 3 {
  return channels === 'grey' ? 1 : 3;
}

/**
 * A record for a network of so many channels: for one, grey takes the place of colour, with mean and deviation of the
 * three channels weighed as L weighs the pixels (ImageNet's become 0.459 and 0.2256).
 */
export function recordFor(record: Preprocessing, channels: number): Preprocessing {
  if (channels === recordChannels(record) || (channels !== 1 && channels !== 3)) return record;
  if (channels === 3) return { ...record, channels: 'grey-repeated' };
  return { ...record, channels: 'grey', mean: [greyOf(record.mean)], std: [greyOf(record.std)] };
}

/** One number as it is, or three by the weights of L. */
function greyOf(values: readonly number[]): number {
  if (values.length === 1) return values[0] as number;
  const sum = values.reduce((total, value, channel) => total + value * (L_WEIGHTS[channel] as number), 0);
  return Math.round((sum / 2 ** 16) * 1e4) / 1e4;
}

/** Of red, green and blue in Pillow's L, in parts of 2 ** 16. */
export const L_WEIGHTS = [19595, 38470, 7471] as const;

/** No side of a network's input is longer: one of a mistaken unit would otherwise take all memory. */
export const MAX_SIDE = 16_384;

/**
 * A whole record: what `given` says, and `base` for the rest.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, naming `where` and the field
 */
export function checkPreprocessing(given: unknown, base: Preprocessing, where: string): Preprocessing {
  const rules = {
    channels: orElse(base.channels, oneOf(CHANNELS, CHANNELS.join(' or '))),
    size: orElse(base.size, size),
    crop: orElse(base.crop, pair),
    pad: orElse(base.pad, integer(0, MAX_SIDE)),
    interpolation: orElse(base.interpolation, oneOf(INTERPOLATIONS, INTERPOLATIONS.join(' or '))),
    mean: orElse(base.mean, unchecked<readonly number[]>()),
    std: orElse(base.std, unchecked<readonly number[]>()),
  };
  const record = readOptions(given as Partial<Preprocessing> | undefined, rules, where);
  const values = record.channels === 'rgb' ? oneOrThree : one;
  const mean = values(record.mean, `${where}: mean`);
  const std = values(record.std, `${where}: std`);
  if (std.includes(0)) throw makeError('ERR_SENET_ARG_RANGE', `${where}: std: expected no zero`);
  return Object.freeze({ ...record, mean, std });
}

const INTERPOLATIONS: readonly Preprocessing['interpolation'][] = ['bilinear', 'bicubic'];

const pair: Rule<readonly [number, number] | null> = nullOr((given, what) => {
  if (!Array.isArray(given) || given.length !== 2)
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${what}: expected [height, width] or null, got ${describe(given)}`,
    );
  for (const side of given) checkInteger(side, what, 1, MAX_SIDE);
  return given as unknown as readonly [number, number];
});

const size: Rule<Preprocessing['size']> = (given, what) =>
  typeof given === 'number' ? checkInteger(given, what, 1, MAX_SIDE) : pair(given, what);

const numbers = (words: string, counts: readonly number[]): Rule<readonly number[]> =>
  matching(words, (given) => isListOf(given, Number.isFinite) && counts.includes(given.length));
const one = numbers('one number in an array', [1]);
const oneOrThree = numbers('one or three numbers', [1, 3]);

/**
 * The record of a classifier: what is given, over what the weights bring or is usual, for so many channels (0: unknown).
 *
 * @throws as `checkPreprocessing`; ERR_SENET_ARG_RANGE if the record would make another number of channels
 */
export function chooseRecord(
  given: Partial<Preprocessing> | undefined,
  base: Preprocessing,
  channels: number,
  where: string,
): Preprocessing {
  const kind = CHANNELS.find((name) => name === given?.channels);
  const wanted = kind === undefined ? channels : recordChannels({ channels: kind });
  if (channels === 0 || channels === wanted) return checkPreprocessing(given, recordFor(base, wanted), where);
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: channels: '${kind}' makes ${wanted}, and the network takes ${channels}`,
  );
}
