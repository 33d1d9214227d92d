/** What each channel of an SE layer is worth: how much the score of a class falls without it. */
import { makeError } from '../errors';
import type { Module } from '../nn/module';
import { throwIfAborted } from '../tensor/abort';
import { tensor } from '../tensor/factories';
import { checkString } from '../tensor/options';
import {
  arrayOf,
  integer,
  number,
  optional,
  orElse,
  readOptions,
  signal,
  type Rule,
  type Rules,
  type Values,
} from '../tensor/rules';
import { tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import { checkModelAndInput, requireSELayers } from './excitations';
import { observe, requireScores } from './observe';
import type { SELayerPlace } from './se-layers';
import { targetsOf } from './class-activation-map';

export interface AblateChannelsOptions {
  /** Which channels. Default: all. */
  channels?: readonly number[];
  /** What the gate of the channel is set to: 0 (default) takes it away, 1 leaves it as it came. */
  value?: number;
  /** The class whose probability is looked at. Default: of each image the one that scores best. */
  target?: number;
  /** Images with different channels missing that go through the network together, 1 to 1,024. Default 32. */
  batchSize?: number;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

export interface ChannelImportance {
  readonly layer: string;
  readonly channels: readonly number[];
  /**
   * For each channel, how much less probable the class is without it, from -1 to 1: the mean over the images. Negative where
   * the class is more probable without.
   */
  readonly drops: Float32Array;
  /** Mean probability of the class with all channels. */
  readonly baseline: number;
}

const where = 'ablateChannels';

const channelList: Rule<readonly number[]> = (given, what) => {
  const channels = arrayOf('an array of at least one channel', integer(0))(given, what);
  if (channels.length > 0) return channels;
  throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an array of at least one channel`);
};

export const ABLATE_CHANNELS = {
  channels: optional(channelList),
  value: orElse(0, number()),
  target: optional(integer(0)),
  batchSize: orElse(32, integer(1, 1024)),
  signal,
} satisfies Rules<AblateChannelsOptions>;

/**
 * Takes the channels of one SE layer away, one at a time, and tells how much less probable a class is without each: a
 * forward for every channel of every image, in evaluation mode.
 *
 * @param x N x C x H x W
 * @param layer path of the SE layer ("layer4.2.se")
 * @throws (rejects) ERR_SENET_ARG_TYPE; ERR_SENET_ARG_RANGE for a path of no SE layer, a channel or a class that is not there;
 *   ERR_SENET_SHAPE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ABORTED, and what forward rejects with
 */
export async function ablateChannels(
  model: Module<unknown>,
  x: Tensor,
  layer: string,
  given?: AblateChannelsOptions,
): Promise<ChannelImportance> {
  checkModelAndInput(model, x, where);
  checkString(layer, `${where}: layer`);
  const options = readOptions(given, ABLATE_CHANNELS, where);
  throwIfAborted(options.signal);
  return ablateWith(model, x, layer, options);
}

/** The same with options that are checked. */
export async function ablateWith(
  model: Module<unknown>,
  x: Tensor,
  layer: string,
  { channels: given, value, target, batchSize, signal }: Values<typeof ABLATE_CHANNELS>,
): Promise<ChannelImportance> {
  return tidy(async () => {
    const own = x.detach(); // the caller may dispose his
    const layers = requireSELayers(model, where);
    const place = layers.find(({ path }) => path === layer);
    if (place === undefined) {
      const known = layers.map(({ path }) => path).join(', ');
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: layer: there is no SE layer at '${layer}' (known are ${known})`,
      );
    }
    const seen = await observe(model, own, { keep: [place.gate], signal }, where);
    const scores = requireScores(seen, own, where);
    const targets = targetsOf(target, scores, where);
    const probabilities = probabilitiesOf(scores, targets);
    const count = seen.outputOf(place.gate)?.flatten(1).shape[1];
    if (count === undefined)
      throw makeError('ERR_SENET_ARG_RANGE', `${where}: layer: '${layer}' was not called by the forward`);
    const channels = given ?? Array.from({ length: count }, (_, channel) => channel);
    const wrong = channels.find((channel) => channel >= count);
    if (wrong !== undefined)
      throw makeError('ERR_SENET_ARG_RANGE', `${where}: channels: '${layer}' has ${count}, got ${wrong}`);
    const drops = new Float32Array(channels.length);
    for (const [image, probability] of probabilities.entries()) {
      const one = own.slice(0, image, image + 1);
      for (let first = 0; first < channels.length; first += batchSize) {
        throwIfAborted(signal);
        const some = channels.slice(first, first + batchSize);
        const without = await withoutEach(model, one, {
          place,
          count,
          some,
          value,
          target: targets[image] as number,
          signal,
        });
        for (const [index, left] of without.entries())
          drops[first + index] =
            (drops[first + index] as number) + (probability - left) / probabilities.length;
      }
    }
    const baseline = probabilities.reduce((sum, one) => sum + one, 0) / probabilities.length;
    return { layer, channels, drops, baseline };
  });
}

/** The probability of a class for one image without each of some channels. */
async function withoutEach(
  model: Module<unknown>,
  x: Tensor,
  given: {
    place: SELayerPlace;
    count: number;
    some: readonly number[];
    value: number;
    target: number;
    signal: AbortSignal | undefined;
  },
): Promise<number[]> {
  const { place, count, some, value, target, signal } = given;
  return tidy(async () => {
    const rows = new Float32Array(some.length * count).fill(NaN);
    for (const [row, channel] of some.entries()) rows[row * count + channel] = value;
    const replacement = tensor(rows, { shape: [some.length, count] });
    const images = x.expand([some.length, -1, -1, -1]);
    const replace = new Map([[place.gate, replacement]]);
    const { output } = await observe(model, images, { replace, signal }, 'ablateChannels');
    return probabilitiesOf(output, new Array<number>(some.length).fill(target));
  });
}

/** Softmax of each image's class. */
function probabilitiesOf(scores: Tensor, targets: readonly number[]): number[] {
  const values = scores.to('cpu').to('float32').softmax(1).toTypedArray() as Float32Array;
  const classes = scores.shape[1] as number;
  return targets.map((target, image) => values[image * classes + target] as number);
}
