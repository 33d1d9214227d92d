/**
 * What a network computes (`PortableModel`), as nodes of ONNX. Each operation has a function here; what ONNX has not, or not
 * with PyTorch's meaning, is refused by name. Knows no option and writes no file.
 */
import type { ByteMeaning, PortableModel, PortableNode, PortableTensor, TensorHandle } from '../binding';
import { elementPieces, savedTensor } from '../checkpoint/tensor-source';
import { ITEM_SIZE, countElements } from '../checkpoint/tensor-record';
import { makeError, type AnySenetError } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { Float, typeCode, type Attribute, type ElementType, type OnnxGraph } from './graph';

/**
 * Adds the nodes of a network.
 *
 * @param input - name of its input in the graph, float32, N x channels x height x width
 * @param tensorOf - the tensor behind a handle, which stays as it is until the graph is written
 * @returns the name of its output
 * @throws ERR_SENET_EXPORT
 */
export function lower(
  model: PortableModel,
  graph: OnnxGraph,
  input: string,
  tensorOf: (handle: TensorHandle) => Tensor,
): string {
  return new Lowering(model, graph, tensorOf).run(input);
}

type Operation = (node: PortableNode, inputs: readonly string[]) => string;

class Lowering {
  /** Of each value: its name for whoever reads it. */
  readonly #names: string[] = [];

  readonly #operations: Readonly<Record<string, Operation>> = {
    convolution: (node, [x = '']) => this.#convolution(node, x),
    affine: (node, [x = '']) => this.#affine(node, x),
    squeeze_excite: (node, [x = '', residual]) => this.#squeezeExcite(node, x, residual),
    add: (node, inputs) => this.#node('Add', inputs, node),
    relu: (node, inputs) => this.#node('Relu', inputs, node),
    sigmoid: (node, inputs) => this.#node('Sigmoid', inputs, node),
    max_pool: (node, [x = '']) => this.#maxPool(node, x),
    average_pool: (node, [x = '']) => this.#averagePool(node, x),
    global_average_pool: (node, inputs) => this.#node('GlobalAveragePool', inputs, node),
    concatenate: (node, inputs) => this.#node('Concat', inputs, node, { axis: 1 }),
    linear: (node, [x = '']) => this.#linear(node, x),
    flatten: (node, [x = '']) => this.#flatten(node, x),
    scale: (node, [x = '', factors = '']) => this.#scale(node, x, factors),
  };

  constructor(
    readonly model: PortableModel,
    readonly graph: OnnxGraph,
    readonly tensorOf: (handle: TensorHandle) => Tensor,
  ) {}

  run(input: string): string {
    const { nodes, values } = this.model;
    const isVector = (value: number): boolean => values[value]?.isVector ?? false;
    this.#give(this.model.input, input);
    for (const node of nodes) {
      const operation = this.#operations[node.operation];
      if (operation === undefined) {
        throw refusal(node, 'ONNX has no operation that does this for images of any size');
      }
      const inputs = node.inputs.map((value, index) => {
        const name = this.#names[value] as string;
        return this.#rounded(name, node.rounds[index] ?? null, `${pathOf(node)}/input`);
      });
      let output = operation(node, inputs);
      if (node.relu) output = this.graph.node('Relu', [output], `${pathOf(node)}/relu`);
      // A vector that was an image of one pixel: in memory both are the same.
      const wasImage = !['linear', 'flatten'].includes(node.operation) && !node.inputs.every(isVector);
      if (isVector(node.output) && wasImage) {
        output = this.graph.node('Flatten', [output], `${pathOf(node)}/flatten`, { axis: 1 });
      }
      this.#give(node.output, output);
    }
    return this.#names[this.model.output] as string;
  }

  /** Says what a value is called; one of bytes is read as what these mean. */
  #give(value: number, name: string): void {
    this.#names[value] = this.#rounded(name, this.model.values[value]?.bytes ?? null, name);
  }

  #rounded(x: string, bytes: ByteMeaning | null, name: string): string {
    if (bytes === null) return x;
    const meaning = [
      this.graph.constant('float32', [bytes.scale], [], `${name}/scale`),
      this.graph.constant('uint8', [bytes.zero], [], `${name}/zero`),
    ];
    const quantized = this.graph.node('QuantizeLinear', [x, ...meaning], `${name}/bytes`);
    return this.graph.node('DequantizeLinear', [quantized, ...meaning], `${name}/values`);
  }

  // --- tensors

  #node(
    operation: string,
    inputs: readonly string[],
    node: PortableNode,
    attributes?: Readonly<Record<string, Attribute>>,
  ): string {
    return this.graph.node(operation, inputs, pathOf(node), attributes);
  }

  /** A tensor of a node as float32, if it has it. @param shape - of as many elements; default: its own */
  #tensor(
    node: PortableNode,
    which: PortableTensor,
    name: string,
    shape?: readonly number[],
  ): string | undefined {
    const handle = node.tensors.find(([own]) => own === which)?.[1];
    if (handle === undefined) return undefined;
    const saved = savedTensor(this.tensorOf(handle), name);
    const data = {
      length: countElements(saved.shape) * ITEM_SIZE[saved.dtype],
      pieces: () => elementPieces(saved),
    };
    const tensor = this.graph.tensor(name, saved.dtype as ElementType, shape ?? saved.shape, data);
    if (saved.dtype !== 'float16') return tensor;
    return this.graph.node('Cast', [tensor], `${name}/float32`, { to: typeCode('float32') });
  }

  /** One whose name follows from the layer's. */
  #own(node: PortableNode, which: PortableTensor, shape?: readonly number[]): string | undefined {
    return this.#tensor(node, which, `${pathOf(node)}.${TENSOR_NAMES[which] ?? which}`, shape);
  }

  /** Weight and bias; those of integers as what they mean. */
  #weights(node: PortableNode): string[] {
    const parts = (['weight', 'bias'] as const).map((which) => {
      const tensor = this.#own(node, which);
      const scale = this.#own(node, which === 'weight' ? 'weightScale' : 'biasScale');
      if (tensor === undefined || scale === undefined) return tensor;
      const channels = this.#shapeOf(node, which === 'weight' ? 'weightScale' : 'biasScale');
      const zeros = this.graph.constant(
        which === 'weight' ? 'int8' : 'int32',
        new Array<number>(channels[0] ?? 0).fill(0),
      );
      const name = `${pathOf(node)}.${which}/values`;
      return this.graph.node('DequantizeLinear', [tensor, scale, zeros], name, { axis: 0 });
    });
    return parts.filter((part) => part !== undefined);
  }

  #shapeOf(node: PortableNode, which: PortableTensor): readonly number[] {
    const handle = node.tensors.find(([own]) => own === which)?.[1];
    return handle === undefined ? [] : this.tensorOf(handle).shape;
  }

  // --- operations

  #convolution(node: PortableNode, x: string): string {
    const { kernel, stride, dilation, groups } = node;
    const output = this.#node('Conv', [x, ...this.#weights(node)], node, {
      kernel_shape: kernel,
      strides: stride,
      pads: padsOf(node),
      dilations: dilation,
      group: groups,
    });
    return this.#hasNorm(node) ? this.#batchNorm(node, output) : output;
  }

  #affine(node: PortableNode, x: string): string {
    if (this.#hasNorm(node)) return this.#batchNorm(node, x);
    const shape = [1, ...this.#shapeOf(node, 'bias'), 1, 1];
    const scale = this.#own(node, 'weight', shape);
    const scaled = scale === undefined ? x : this.graph.node('Mul', [x, scale], `${pathOf(node)}/scale`);
    return this.#node('Add', [scaled, this.#own(node, 'bias', shape) as string], node);
  }

  #hasNorm(node: PortableNode): boolean {
    return node.tensors.some(([which]) => which === 'normWeight');
  }

  #batchNorm(node: PortableNode, x: string): string {
    const tensors = (['normWeight', 'normBias', 'runningMean', 'runningVar'] as const).map(
      (which) => this.#own(node, which) as string,
    );
    return this.graph.node('BatchNormalization', [x, ...tensors], `${pathOf(node)}/bn`, {
      epsilon: new Float(node.eps),
    });
  }

  /** The squeeze is an image of one pixel, its layers are 1 x 1 convolutions of that. */
  #squeezeExcite(node: PortableNode, x: string, residual: string | undefined): string {
    const name = pathOf(node);
    const mean = this.graph.node('GlobalAveragePool', [x], `${name}/mean`);
    const hasKernel = node.tensors.some(([which]) => which === 'channelKernel');
    const gate = hasKernel ? this.#channelGate(node, mean) : this.#layers(node, mean);
    const factors = this.graph.node('Sigmoid', [gate], `${name}/gate`);
    const scaled = this.graph.node('Mul', [x, factors], name);
    return residual === undefined ? scaled : this.graph.node('Add', [scaled, residual], `${name}/add`);
  }

  #layers(node: PortableNode, mean: string): string {
    const layer = (part: 'squeeze' | 'excite', input: string): string => {
      const path = part === 'squeeze' ? node.squeezeName : node.exciteName;
      const shape = [...this.#shapeOf(node, `${part}Weight`), 1, 1];
      const tensors = [
        this.#tensor(node, `${part}Weight`, `${path}.weight`, shape),
        this.#tensor(node, `${part}Bias`, `${path}.bias`),
      ];
      const inputs = [input, ...tensors.filter((tensor) => tensor !== undefined)];
      return this.graph.node('Conv', inputs, path, { kernel_shape: [1, 1] });
    };
    const hidden = this.graph.node('Relu', [layer('squeeze', mean)], `${node.squeezeName}/relu`);
    return layer('excite', hidden);
  }

  /** A convolution along the channels: for it they are the height of an image of one channel. */
  #channelGate(node: PortableNode, mean: string): string {
    const path = node.squeezeName;
    const [size = 1] = this.#shapeOf(node, 'channelKernel');
    const kernel = this.#tensor(node, 'channelKernel', `${path}.weight`, [1, 1, size, 1]) as string;
    const swap = { perm: [0, 2, 1, 3] };
    const column = this.graph.node('Transpose', [mean], `${path}/column`, swap);
    const half = (size - 1) / 2;
    const convolved = this.graph.node('Conv', [column, kernel], path, {
      kernel_shape: [size, 1],
      pads: [half, 0, half, 0],
    });
    return this.graph.node('Transpose', [convolved], `${path}/channels`, swap);
  }

  #maxPool(node: PortableNode, x: string): string {
    checkCeilMode(node);
    return this.#node('MaxPool', [x], node, {
      kernel_shape: node.kernel,
      strides: node.stride,
      pads: padsOf(node),
      ceil_mode: Number(node.ceilMode),
    });
  }

  /**
   * PARITY: with ceil_mode, PyTorch divides by what of a window lies in the input and its padding, and runtimes differ in
   * what they count of a window that reaches beyond: with the zeros as a part of the input, all count the same.
   */
  #averagePool(node: PortableNode, x: string): string {
    checkCeilMode(node);
    const pads = padsOf(node);
    const isPadded = pads.some((side) => side > 0) && node.ceilMode && node.countIncludePad;
    const [top = 0, left = 0] = pads;
    const input = isPadded
      ? this.graph.node(
          'Pad',
          [x, this.graph.constant('int64', [0, 0, top, left, 0, 0, top, left])],
          `${pathOf(node)}/pad`,
        )
      : x;
    return this.#node('AveragePool', [input], node, {
      kernel_shape: node.kernel,
      strides: node.stride,
      pads: isPadded ? [0, 0, 0, 0] : pads,
      ceil_mode: Number(node.ceilMode),
      count_include_pad: Number(node.countIncludePad && !node.ceilMode),
    });
  }

  #linear(node: PortableNode, x: string): string {
    return this.#node('Gemm', [x, ...this.#weights(node)], node, { transB: 1 });
  }

  #flatten(node: PortableNode, x: string): string {
    const rank = this.model.values[node.inputs[0] as number]?.isVector === true ? 2 : 4;
    const [first = 1, last = -1] = node.axes.map((axis) => (axis < 0 ? axis + rank : axis));
    if (first === last) return x;
    if (first === 1 && last === rank - 1) return this.#node('Flatten', [x], node, { axis: 1 });
    throw refusal(node, 'it does not join all axes behind the batch');
  }

  #scale(node: PortableNode, x: string, factors: string): string {
    const isVector = this.model.values[node.inputs[1] as number]?.isVector === true;
    const images = isVector
      ? this.graph.node(
          'Unsqueeze',
          [factors, this.graph.constant('int64', [2, 3])],
          `${pathOf(node)}/factors`,
        )
      : factors;
    return this.#node('Mul', [x, images], node);
  }
}

/** How state dicts call them. */
const TENSOR_NAMES: Partial<Readonly<Record<PortableTensor, string>>> = {
  weightScale: 'weight_scale',
  biasScale: 'bias_scale',
  normWeight: 'bn.weight',
  normBias: 'bn.bias',
  runningMean: 'bn.running_mean',
  runningVar: 'bn.running_var',
};

function pathOf({ name, operation }: PortableNode): string {
  return name === '' ? operation : name;
}

function padsOf({ padding: [top = 0, left = 0] }: PortableNode): number[] {
  return [top, left, top, left];
}

/** PyTorch drops a last window that begins in the padding; runtimes that follow older words of ONNX do not. */
function checkCeilMode(node: PortableNode): void {
  const { kernel, stride, padding, ceilMode } = node;
  const mayBeginBehind = kernel.some((size, axis) => (padding[axis] ?? 0) + (stride[axis] ?? 1) > size);
  if (ceilMode && mayBeginBehind) {
    throw refusal(
      node,
      'with ceilMode its last window may begin in the padding, where ONNX and PyTorch differ',
    );
  }
}

function refusal(node: PortableNode, why: string): AnySenetError {
  const place = node.name === '' ? '' : `'${node.name}': `;
  return makeError('ERR_SENET_EXPORT', `export: ${place}${node.operation} cannot be exported: ${why}`);
}
