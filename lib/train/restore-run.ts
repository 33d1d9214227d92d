/** Whether a checkpoint is of the run that is to go on, and its parts put back, all of them or none. */
import { isMap } from '../brands';
import { StateDict } from '../checkpoint/state-dict';
import { isSenetError, makeError } from '../errors';
import { Optimizer } from '../optim/optimizer';
import { tidy } from '../tensor/scope';
import type { Position, RunIdentity, TrainingCheckpoint } from './training-checkpoint';
import { copiesOf } from './training-weights';

/** What a checkpoint has the state of. */
export interface Part {
  stateDict(): unknown;
  loadStateDict(state: unknown): unknown;
}

const WORDS: Readonly<Partial<Record<keyof RunIdentity, string>>> = {
  epochs: 'epochs',
  trainImages: 'training images',
  batchesPerEpoch: 'batches in an epoch',
  accumulate: 'batches in a step',
  validationImages: 'validation images',
  precision: 'precision',
};

/**
 * @param hasEnd - whether the schedule ends with the run, which may then not become longer
 * @throws ERR_SENET_RESUME
 */
export function checkSameRun(own: RunIdentity, kept: RunIdentity, hasEnd: boolean): void {
  for (const [name, words] of Object.entries(WORDS) as [keyof RunIdentity, string][]) {
    if (own[name] === kept[name]) continue;
    // Each of fewer processes has more batches.
    if (name === 'batchesPerEpoch' && own.worldSize !== kept.worldSize && !hasEnd) continue;
    if (name === 'epochs' && own.epochs > kept.epochs && !hasEnd) continue;
    const [was, is] = [kept[name] ?? 'none', own[name] ?? 'none'];
    throw makeError('ERR_SENET_RESUME', `resume: the checkpoint's run has ${words} ${was}, this one ${is}`);
  }
}

/**
 * Where a run goes on with another number of processes: after as many samples of the epoch as were seen, or, where those
 * are no whole number of the new steps, up to a step before.
 *
 * @param own - the state of this process's loader
 * @throws ERR_SENET_RESUME for a loader whose state says nothing of its batches
 */
export function atWorldSize(
  { identity, position, loader }: TrainingCheckpoint,
  run: RunIdentity,
  own: unknown,
): { readonly position: Position; readonly loader: unknown } {
  if (identity.worldSize === run.worldSize) return { position, loader };
  const [kept, mine] = [loader, own].map((state) =>
    isMap(state) ? Object.fromEntries(state as Map<string, unknown>) : (state as Record<string, unknown>),
  ) as [Record<string, unknown>, Record<string, unknown>];
  const [done, was, is] = [kept.position, kept.batchSize, mine.batchSize];
  if (typeof done !== 'number' || typeof was !== 'number' || typeof is !== 'number') {
    throw makeError(
      'ERR_SENET_RESUME',
      'resume: with another number of processes only a run whose loader is a DataLoader goes on',
    );
  }
  const seen = done * was * identity.worldSize;
  const steps = Math.floor(seen / (is * run.worldSize * run.accumulate));
  return {
    position: { ...position, stepInEpoch: position.trained ? position.stepInEpoch : steps },
    loader: { ...mine, epoch: kept.epoch, seed: kept.seed, position: steps * run.accumulate },
  };
}

/** A part that a run has or has not, by name, with its state in the checkpoint. */
export type KeptPart = readonly [what: string, part: Part | undefined, state: unknown];

/**
 * Each part takes all or nothing; those that took theirs before another refused get back what they had.
 *
 * @throws ERR_SENET_RESUME for a state that is another's, and for a part that only the run or only the checkpoint has
 */
export function restoreParts(parts: readonly KeptPart[]): void {
  for (const [what, part, state] of parts) {
    const isKept = state !== null && state !== undefined;
    if (isKept === (part !== undefined)) continue;
    throw makeError(
      'ERR_SENET_RESUME',
      `resume: the checkpoint's run has ${isKept ? 'a' : 'no'} ${what}, and this one ${isKept ? 'none' : 'has one'}`,
    );
  }
  tidy(() => {
    // All before the first is changed: one that is busy refuses.
    const kept = parts.flatMap(([what, part, state]) =>
      part === undefined ? [] : [{ what, part, state, putBack: keep(part) }],
    );
    const undo: (() => void)[] = [];
    for (const { what, part, state, putBack } of kept) {
      try {
        part.loadStateDict(state);
      } catch (cause) {
        for (const before of undo) before();
        if (!isSenetError(cause)) throw cause;
        const message = `resume: the checkpoint is of another ${what}: ${cause.message}`;
        throw makeError('ERR_SENET_RESUME', message.split('\n'), { cause });
      }
      undo.push(putBack);
    }
  });
}

/** What gives a part back the state that it has now. */
function keep(part: Part): () => void {
  const before = part.stateDict();
  const state = before instanceof StateDict ? new StateDict(copiesOf(before), before.metadata) : before;
  const putBackOptions = part instanceof Optimizer ? part.keepOptions() : undefined;
  return () => {
    part.loadStateDict(state);
    putBackOptions?.();
  };
}
