/** Class activation maps: where in an image a network saw a class. */
import { makeError } from '../errors';
import type { Module } from '../nn/module';
import { throwIfAborted } from '../tensor/abort';
import { tensor } from '../tensor/factories';
import { describe } from '../tensor/options';
import {
  arrayOf,
  integer,
  oneOf,
  optional,
  orElse,
  readOptions,
  signal,
  string,
  type Rule,
  type Rules,
} from '../tensor/rules';
import { noGrad, runInMode, tidy } from '../tensor/scope';
import { handleOf, type Tensor } from '../tensor/tensor';
import { compute, gradientMap, normalise } from './cam-formulas';
import { CAM_METHODS, type CamMethod, type GradientCam } from './cam-methods';
import { checkModelAndInput } from './excitations';
import { gradientsOf, observe, requireScores } from './observe';
import { scoreMap } from './score-cam';
import { activationsOf, chooseLayer } from './target-layer';

export interface ClassActivationMapOptions {
  /**
   * 'gradcam' (default), 'gradcam++', 'layercam', or 'scorecam', which takes a forward for each channel of the layer
   * in place of a gradient.
   */
  method?: CamMethod;
  /** Path of the module whose output is looked at ("layer4.2"). Default: the last block. */
  layer?: string;
  /** The class, or one for each image. Default: of each image the one that scores best. */
  target?: number | readonly number[];
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

export interface ClassActivationMap {
  /** From 0 to 1, N x h x w, in the size of the layer: resize it to that of the image (`resizeMap`). */
  readonly map: Tensor;
  /** Path of the layer. */
  readonly layer: string;
  /** The class of each image. */
  readonly targets: readonly number[];
  /** What the model gave, N x classes. */
  readonly scores: Tensor;
}

const target: Rule<number | readonly number[]> = (given, what) => {
  const all: unknown[] = Array.isArray(given) ? given : [given];
  for (const one of all) {
    if (Number.isSafeInteger(one) && (one as number) >= 0) continue;
    const code = typeof one === 'number' ? 'ERR_SENET_ARG_RANGE' : 'ERR_SENET_ARG_TYPE';
    throw makeError(
      code,
      `${what}: expected the index of a class, or an array of them, got ${describe(one)}`,
    );
  }
  return Array.isArray(given) ? [...(given as number[])] : (given as number);
};

const OPTIONS = {
  method: orElse('gradcam', oneOf(CAM_METHODS)),
  layer: optional(string),
  target: optional(target),
  signal,
} satisfies Rules<ClassActivationMapOptions>;

/**
 * Where in images a model saw a class: Grad-CAM, Grad-CAM++, LayerCAM or Score-CAM, to the numbers of PyTorch's
 * `grad-cam` package. In evaluation mode, whatever mode the model is in; no parameter and no gradient of it changes.
 *
 * @param x what the model's forward takes, N x C x H x W
 * @throws (rejects) ERR_SENET_ARG_TYPE; ERR_SENET_ARG_RANGE for a layer that is not there, is not called or gives no N x C x h x w,
 *   and for a class that is not there; ERR_SENET_SHAPE for a model that gives no N x classes; ERR_SENET_AUTOGRAD for a layer that
 *   the scores do not depend on, and for weights that are changed in place meanwhile; ERR_SENET_UNKNOWN_OPTION,
 *   ERR_SENET_ABORTED, and what forward rejects with
 */
export async function classActivationMap(
  model: Module<unknown>,
  x: Tensor,
  options?: ClassActivationMapOptions,
): Promise<ClassActivationMap> {
  const where = 'classActivationMap';
  checkModelAndInput(model, x, where);
  const { method, layer: path, target, signal } = readOptions(options, OPTIONS, where);
  throwIfAborted(signal);
  return tidy(async () => {
    const own = x.detach(); // the caller may dispose his
    const layer = await chooseLayer(model, path, own, { signal, where });
    const gradients = method !== 'scorecam';
    const seen = await observe(model, own, { keep: [layer.module], gradients, signal }, where);
    const scores = requireScores(seen, own, where);
    const targets = targetsOf(target, scores, where);
    const activations = activationsOf(seen, layer, own, where);
    const map =
      method === 'scorecam'
        ? await scoreMap(model, own, activations.to('float32'), { targets, signal, where })
        : await mapOf(method, activations, { scores, targets, signal, again: false, path: layer.path });
    return { map: normalise(map), layer: layer.path, targets, scores: scores.detach() };
  });
}

/** The map of a gradient method, before it is normalised, N x h x w. */
export async function mapOf(
  method: GradientCam,
  activations: Tensor,
  given: {
    scores: Tensor;
    targets: readonly number[];
    signal: AbortSignal | undefined;
    again: boolean;
    path: string;
  },
): Promise<Tensor> {
  const [gradient] = await classGradients([activations], given);
  if (gradient === null || gradient === undefined) throw independent(given.path);
  return gradientMap(method, activations.detach().to('float32'), gradient.to('float32'));
}

/** Gradients of the classes' scores, each image's of its own. */
async function classGradients(
  activations: readonly Tensor[],
  {
    scores,
    targets,
    signal,
    again,
  }: { scores: Tensor; targets: readonly number[]; signal: AbortSignal | undefined; again: boolean },
): Promise<(Tensor | null)[]> {
  const index = tensor(
    targets.map((one) => [one]),
    { dtype: 'int64', device: scores.device },
  );
  const score = runInMode(() => scores.gather(1, index).sum(), { grad: true });
  return gradientsOf(score, activations, again, signal);
}

export function independent(path: string): Error {
  return makeError('ERR_SENET_AUTOGRAD', `layer: the scores do not depend on what '${path}' gives`);
}

/** The class of each image. @throws ERR_SENET_ARG_RANGE */
export function targetsOf(
  target: number | readonly number[] | undefined,
  scores: Tensor,
  where: string,
): number[] {
  const [count, classes] = scores.shape as [number, number];
  if (target === undefined) {
    const best = noGrad(() => scores.argmax(1));
    return Array.from(best.toTypedArray() as BigInt64Array, Number);
  }
  const targets = typeof target === 'number' ? new Array<number>(count).fill(target) : [...target];
  if (targets.length !== count) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: target: expected a class for each of ${count} images, got ${targets.length}`,
    );
  }
  const wrong = targets.find((one) => one >= classes);
  if (wrong === undefined) return targets;
  throw makeError('ERR_SENET_ARG_RANGE', `${where}: target: the model has ${classes} classes, got ${wrong}`);
}

/**
 * Maps in the size of an image, bilinear (half-pixel centres), as OpenCV's and PyTorch's `interpolate`.
 *
 * @param map N x h x w
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_SHAPE, ERR_SENET_OUT_OF_MEMORY
 */
export async function resizeMap(
  map: Tensor,
  size: readonly [height: number, width: number],
): Promise<Tensor> {
  const where = 'resizeMap';
  handleOf(map, `${where}: map`);
  if (map.shape.length !== 3)
    throw makeError('ERR_SENET_SHAPE', `${where}: expected maps of N x h x w, got [${map.shape.join(', ')}]`);
  const sides = arrayOf('[height, width]', integer(1))(size, `${where}: size`);
  if (sides.length !== 2)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: size: expected [height, width], got ${describe(size)}`);
  return (await compute('aten::upsample_bilinear2d', map.unsqueeze(1), sides, false, null, null)).squeeze(1);
}
