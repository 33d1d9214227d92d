/** ONNX files in ONNX Runtime, natively and as WebAssembly: both come from the benchmarks' own package.json. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

import { tensor, type Tensor } from '../../lib';
import { skip } from './skip';

const BENCH = path.join(__dirname, '..', '..', 'scripts', 'bench');

interface OrtTensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}
interface Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}
interface Runtime {
  readonly InferenceSession: {
    create(model: string | Uint8Array, options?: object): Promise<Session>;
  };
  readonly Tensor: new (type: string, data: unknown, dims: readonly number[]) => OrtTensor;
  readonly env: { wasm: { numThreads: number } };
}

/** A file that ONNX Runtime has read. */
export class OnnxModel {
  private constructor(
    private readonly runtime: Runtime,
    private readonly session: Session,
  ) {}

  /** `level`: what it rewrites. 'all' also lays weights out for its kernels, nine tenths of the time that it takes to read a file. */
  static async open(
    file: string,
    which: 'node' | 'web' = 'node',
    level: 'all' | 'extended' = 'all',
  ): Promise<OnnxModel> {
    const runtime = createRequire(path.join(BENCH, 'package.json'))(`onnxruntime-${which}`) as Runtime;
    if (which === 'web') runtime.env.wasm.numThreads = 1;
    const model = which === 'web' ? readFileSync(file) : file;
    const options = which === 'web' ? {} : { intraOpNumThreads: 2, graphOptimizationLevel: level };
    return new OnnxModel(runtime, await runtime.InferenceSession.create(model, options));
  }

  get names(): { input: readonly string[]; output: readonly string[] } {
    return { input: this.session.inputNames, output: this.session.outputNames };
  }

  /** What it gives for its one input; of uint8 and float32 tensors. */
  async run(x: Tensor): Promise<Tensor> {
    const input = new this.runtime.Tensor(x.dtype, x.contiguous().toTypedArray(), x.shape);
    const outputs = await this.session.run({ [this.session.inputNames[0] as string]: input });
    const { data, dims } = outputs[this.session.outputNames[0] as string] as OrtTensor;
    return tensor(data, { shape: [...dims] });
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}

/** Skips what `context` is the `this` of, where ONNX Runtime cannot be had. */
export function needOnnxRuntime(context: Mocha.Context): void {
  const { installOnnxruntime } = require('../../scripts/bench/peers') as {
    installOnnxruntime: (progress?: { show: (text: string) => void }) => { absent?: string };
  };
  const { absent } = installOnnxruntime();
  if (absent !== undefined) skip(context, `no ONNX Runtime: ${absent}`);
}
