/**
 * Which network a file of weights is for: what its keys say (`recognise`), and where two networks have the same keys and
 * shapes, what its metadata, the `config.json` beside it or its hash says, that of its published name included. Never a
 * guess. Knows the records that it is given, and not the registry; reads no weights.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import { Budget, inSlices } from '../checkpoint/budget';
import { inspectCheckpoint, type CheckpointReport, type WeightsNetwork } from '../checkpoint/inspect';
import { unpacked } from '../checkpoint/packed-checkpoint';
import { withSource } from '../checkpoint/source';
import { makeError } from '../errors';
import { printable } from '../printable';
import type { WeightsPlace } from './from-weights';
import { architectureBeside } from './hub-config';
import { recogniseInSteps, type Shapes } from './recognise';
import type { ModelRecord } from './record';
import { SIGNATURES } from './signatures';

/** Bytes that are hashed in one step, some milliseconds. */
const PIECE_BYTES = 1024 * 1024;

/** What an inspected file's state dict is of; null if no network of the library is known by any of its keys. */
export async function identify(
  records: readonly ModelRecord[],
  report: Omit<CheckpointReport, 'network'>,
  file: string | null,
): Promise<WeightsNetwork | null> {
  const found = await inSlices(new Budget('its keys'), recogniseInSteps(records, shapesOf(report)));
  if (found === null) return null;
  const { candidates, prefix: _, ...said } = found;
  const chosen = candidates.length > 1 ? await decide(candidates, report, file) : candidates[0];
  return {
    model: chosen?.name ?? null,
    candidates: candidates.map(({ name }) => name),
    ...said,
  };
}

/**
 * The same of a file.
 *
 * @throws (rejects) as `inspectCheckpoint`; ERR_SENET_UNKNOWN_WEIGHTS (of no network, or of several, which are named)
 */
export async function identifyFile(
  records: readonly ModelRecord[],
  file: string,
  { key, prefix }: WeightsPlace,
  where: string,
): Promise<ModelRecord> {
  const place = { ...(key === undefined ? {} : { key }), ...(prefix === undefined ? {} : { prefix }) };
  const report = await inspectCheckpoint(file, place);
  const told = records.find(({ name }) => name === report.metadata.model);
  if (told !== undefined) return told;
  const { network: found } = report;
  const record = records.find(({ name }) => name === found?.model);
  if (record !== undefined) return record;
  throw makeError('ERR_SENET_UNKNOWN_WEIGHTS', `${where}: ${printable(file, 1000)} ${problemOf(found)}`, {
    details: { file, candidates: found?.candidates ?? [] },
  });
}

function problemOf(found: WeightsNetwork | null): string {
  if (found === null) {
    return 'is of no network that the library has, by its keys; name the model that they are for';
  }
  const { candidates, framework, spatialDims } = found;
  if (candidates.length > 0) {
    return `has the keys and shapes of ${candidates.join(' and of ')}, which differ in strides and pools alone; name the one that it is`;
  }
  const problem = problemOfDims(spatialDims);
  return problem === null
    ? `has keys as ${framework}, and those and the shapes are of no network that the library has; name the model that they are for`
    : `has keys as ${framework}, and ${problem}`;
}

/** What is said of a network for volumes or signals; null of one for images. */
export function problemOfDims(spatialDims: number | null): string | null {
  return spatialDims === null || spatialDims === 2
    ? null
    : `its convolutions are ${spatialDims}-D (kernels of ${spatialDims + 2} dimensions); the library has 2-D ones only`;
}

/** The state dict that `load` would give. */
function shapesOf({ stateDict, tensors }: Pick<CheckpointReport, 'stateDict' | 'tensors'>): Shapes {
  const shapes = new Map<string, readonly number[]>();
  if (stateDict === null) return shapes;
  const before = stateDict.key === '' ? '' : `${stateDict.key}.`;
  for (const { key, shape } of tensors)
    if (key.startsWith(before)) shapes.set(key.slice(before.length), shape);
  return shapes;
}

/** Of several what the file says of itself; undefined if nothing does. */
async function decide(
  candidates: readonly ModelRecord[],
  { metadata }: Pick<CheckpointReport, 'metadata'>,
  file: string | null,
): Promise<ModelRecord | undefined> {
  const named = (name: unknown): ModelRecord | undefined => candidates.find((record) => record.name === name);
  const told = NAMED_UNDER.map((key) => named(metadata[key])).find((record) => record !== undefined);
  if (told !== undefined || file === null) return told;
  return (
    named(await architectureBeside(file)) ??
    (await publishedAs(candidates, file)) ??
    (await namedAsPublished(candidates, file))
  );
}

/** Under what a file's metadata names the network that it is for. */
const NAMED_UNDER = ['model', 'architecture'] as const;

/**
 * What is wrong with weights for the network `name`, by what their file's metadata and `config.json` say; null if nothing
 * is: they name it, none that is known, or one of other keys and shapes, which do not fit anyway.
 */
export function twinOf(
  name: string,
  metadata: ReadonlyMap<string, string>,
  architecture: string | null = null,
): string | null {
  const isTwin = (told: string | null | undefined): boolean =>
    told != null && told !== name && SIGNATURES[told] !== undefined && SIGNATURES[told] === SIGNATURES[name];
  const twin = [...NAMED_UNDER.map((key) => metadata.get(key)), architecture].find(isTwin);
  if (twin == null) return null;
  return `says that it is of ${twin}, which has the keys and shapes of ${name} and differs in strides and pools: make that network for it`;
}

/** The one that has published weights with the file's hash. */
async function publishedAs(
  candidates: readonly ModelRecord[],
  file: string,
): Promise<ModelRecord | undefined> {
  const hashes = candidates.flatMap((record) => record.weights.map(({ sha256 }) => ({ record, sha256 })));
  if (hashes.length === 0) return undefined;
  const digest = await digestOf(file, 'sha256');
  return hashes.find(({ sha256 }) => sha256 !== null && sha256.length >= 8 && digest.startsWith(sha256))
    ?.record;
}

/** The one that the file is called as it was published, if the hash in that name is the file's own. */
async function namedAsPublished(
  candidates: readonly ModelRecord[],
  file: string,
): Promise<ModelRecord | undefined> {
  for (const record of candidates) {
    const begins = record.publishedFile?.exec(path.basename(file))?.[1];
    if (begins !== undefined) return (await digestOf(file, 'sha1')).startsWith(begins) ? record : undefined;
  }
  return undefined;
}

/** Of the checkpoint, where the file is an archive around it. */
function digestOf(file: string, algorithm: 'sha1' | 'sha256'): Promise<string> {
  return withSource(file, async (opened) => {
    const source = await unpacked(opened);
    const hash = createHash(algorithm);
    for (let at = 0; at < source.size; at += PIECE_BYTES) {
      hash.update(await source.read(at, Math.min(PIECE_BYTES, source.size - at)));
      await turn();
    }
    return hash.digest('hex');
  });
}
