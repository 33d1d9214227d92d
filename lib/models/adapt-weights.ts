/**
 * Weights for other classes and other channels than a network is to have, as timm adapts them
 * (timm/models/_builder.py, load_pretrained; timm/models/_manipulate.py, adapt_input_conv).
 */
import { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { keyAliasesOf, respell } from '../nn/load-state-dict';
import { Module } from '../nn/module';
import { ops } from '../tensor/ops';
import type { Tensor } from '../tensor/tensor';
import type { ClassifyingModule, ModelRecord } from './record';

/** A state dict for a network, and the tensors that were made for it; the others are the given ones. */
export interface Adapted {
  readonly state: StateDict;
  readonly made: readonly Tensor[];
  /** Whether the classifier was drawn here, in float32 whatever the weights are. */
  readonly hasFreshClassifier: boolean;
}

/**
 * The state dict for the classes and channels of `model`: its convolution of the image for other channels, and where the
 * classes are others the classifier that `model` is given here, freshly drawn.
 *
 * @throws ERR_SENET_STATE_DICT for channels that timm does not adapt either: of weights that take neither 3 nor as many
 */
export function adaptWeights(record: ModelRecord, state: StateDict, model: ClassifyingModule): Adapted {
  const own = new Map(model.namedParameters());
  const types = model.namedModules().map(([, module]) => Module.typeOf(module));
  const aliases = keyAliasesOf(types, (key) => own.get(key)?.shape);
  const [classifier, stem] = [`${record.classifier}.`, `${record.stem}.weight`];
  const classes = own.get(`${classifier}weight`)?.shape[0];
  const channels = own.get(stem)?.shape[1] ?? record.inChannels;
  const made: Tensor[] = [];
  const entries: [string, Tensor][] = [];
  let hasClassifier = false;
  let isForeign = true;
  for (const [key, tensor] of state) {
    const name = respell(key, aliases);
    isForeign &&= name !== stem;
    const isHead = name.startsWith(classifier);
    if (isHead && tensor.shape[0] !== classes) continue;
    hasClassifier ||= isHead;
    if (name === stem && tensor.shape[1] !== channels) {
      const adapted = adaptInputConv(tensor, channels, record.name);
      made.push(adapted);
      entries.push([key, adapted]);
    } else entries.push([key, tensor]);
  }
  // Another network's weights are refused as they are.
  const hasFreshClassifier = !hasClassifier && !isForeign;
  if (hasFreshClassifier) {
    model.resetClassifier(classes ?? 0);
    for (const [name, parameter] of model.getClassifier().namedParameters()) {
      entries.push([`${classifier}${name}`, parameter]);
    }
  }
  const adapted = new StateDict(entries, state.metadata, state.fileMetadata, state.source);
  return { state: adapted, made, hasFreshClassifier };
}

/** timm's adapt_input_conv: for one channel the sum, for others the three again and again, scaled to the same sum. */
function adaptInputConv(weight: Tensor, channels: number, name: string): Tensor {
  const [, from = 0] = weight.shape;
  if (channels === 1 && from <= 3) {
    return ops.call('aten::sum.dim_IntList', weight, [1], true) as Tensor;
  }
  if (from !== 3) {
    throw makeError(
      'ERR_SENET_STATE_DICT',
      `${name}: inChannels: weights for ${from} channels cannot be adapted to ${channels}, only those for 3 can`,
    );
  }
  const repeated = ops.call('aten::repeat', weight, [1, Math.ceil(channels / 3), 1, 1]) as Tensor;
  const sliced = ops.call('aten::slice.Tensor', repeated, 1, 0, channels) as Tensor;
  const scaled = sliced.mul(3 / channels);
  repeated.dispose();
  sliced.dispose();
  return scaled;
}
