/**
 * How a classifier explains images: one at a time, since each takes the memory of a training step, in a queue of its own
 * with the same bound as that of `classify`. What an explanation is, `explain-input` says.
 */
import type { Module } from '../nn/module';
import { detached, tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import { classifierPixels } from './byte-budget';
import type { PlainModule } from './plain-module';
import { explainInput, type CheckedExplainOptions, type ExplainedNetwork } from './explain-input';
import type { Explanation } from './explanation';
import type { BatchingOptions } from './image-batches';
import { ImageWork, type DecodingSettings, type ImageSource } from './image-work';
import { Pipeline } from './pipeline';

/** What is done with an image that is the network's input, in a `tidy`. */
type Task<Result> = (model: Module<unknown>, x: Tensor) => Promise<Result>;

class ExplainWork extends ImageWork {
  constructor(
    source: ImageSource,
    { preprocessing, decoding }: ExplainerFacts,
    readonly task: Task<unknown>,
  ) {
    super(source, preprocessing, decoding, 1, false);
  }
}

export type ExplainerFacts = ExplainedNetwork & { readonly decoding: DecodingSettings };

export class Explainer {
  readonly #pipeline: Pipeline<ExplainWork, { readonly value: unknown }>;
  readonly #plain: PlainModule;
  readonly #facts: ExplainerFacts;

  constructor(plain: PlainModule, facts: ExplainerFacts, { maxQueue }: Required<BatchingOptions>) {
    this.#plain = plain;
    this.#facts = facts;
    this.#pipeline = new Pipeline({
      ...{ maxBatch: 1, delay: 0, maxQueue, decoders: 1 },
      budget: classifierPixels,
      lanes: () => 1,
      run: ([work]) => detached(null, () => tidy(() => this.#run(work as ExplainWork))),
    });
  }

  /** @param source - that `checkSource` has passed; a tensor may be disposed from here on */
  explain(source: ImageSource, options: CheckedExplainOptions): Promise<Explanation> {
    return this.run(source, options.signal, (model, x) => explainInput(model, x, options, this.#facts));
  }

  /** Runs a task on the network's input and the plain module, in turn with the others. */
  async run<Result>(
    source: ImageSource,
    signal: AbortSignal | undefined,
    task: Task<Result>,
  ): Promise<Result> {
    const [outcome] = await this.#pipeline.run([new ExplainWork(source, this.#facts, task)], signal);
    return outcome?.value as Result;
  }

  /** Waits for what was accepted, and frees the module if it was made here. */
  async close(): Promise<void> {
    await this.#pipeline.close();
    await this.#plain.dispose();
  }

  async #run({ input, task }: ExplainWork): Promise<[{ value: unknown }]> {
    const model = await this.#plain.get();
    const [like] = model.parameters();
    const x = like === undefined ? input : input.to({ dtype: like.dtype, device: like.device });
    return [{ value: await task(model, x) }];
  }
}
