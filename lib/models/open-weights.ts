/**
 * Weights that are found, fetched, read and checked, with the network that they are for and what `config.json` beside them
 * says; and a network with them. Whatever begins with weights begins here. Knows the records that it is given, and not
 * the registry.
 */
import { makeError } from '../errors';
import { Module } from '../nn/module';
import { printable } from '../printable';
import type { Transfer } from './fetch-weights';
import { findAmong, type FoundWeights, type WantedWeights } from './find-weights';
import {
  createWithWeights,
  readWeights,
  type ReadWeights,
  type Subject,
  type WeightsPlace,
} from './from-weights';
import { configFor, readConfigBeside, type HubConfig } from './hub-config';
import { twinOf } from './identify';
import { recordBehind, type ClassifyingModule, type ModelRecord } from './record';

/** Where they come from, what they are for, and their tensors. */
export interface OpenedWeights<Of extends Subject = ModelRecord> extends FoundWeights<Of>, ReadWeights<Of> {
  readonly subject: Of;
  /** Of weights that are not published, where it is of this network. */
  readonly config: HubConfig | null;
}

/**
 * The weights that are meant; their `state` is the caller's to dispose.
 *
 * @throws (rejects) as `findAmong` and `load`; ERR_SENET_STATE_DICT where what they say of themselves is another network
 *   with the same keys and shapes; as `configFor`
 */
export async function openAmong<Of extends Subject>(
  records: readonly ModelRecord[],
  wanted: WantedWeights<Of>,
  options: Transfer & WeightsPlace,
  where: string,
): Promise<OpenedWeights<ModelRecord | Of>> {
  const found = await findAmong(records, wanted, options, where);
  const { subject, file, published } = found;
  const state = await readWeights(file, subject, options, options.signal);
  try {
    const of: Subject = subject;
    const record = Module.isModule(of) ? recordBehind(of) : of;
    const beside = published === undefined ? await readConfigBeside(file) : null;
    const twin = record === undefined ? null : twinOf(record.name, state.fileMetadata, beside?.architecture);
    if (twin !== null) throw makeError('ERR_SENET_STATE_DICT', `${where}: ${printable(file, 1000)} ${twin}`);
    const isOwn = record !== undefined && beside?.architecture === record.name;
    const config = isOwn ? configFor(record, beside, file) : null;
    return { ...found, state, config, ...(config === null ? {} : { options: config.options }) };
  } catch (error) {
    state.dispose();
    throw error;
  }
}

/** A network with the weights. Errors: as `openAmong` and `createWithWeights`. */
export async function loadModel(
  records: readonly ModelRecord[],
  wanted: WantedWeights,
  options: Transfer & WeightsPlace,
  where: string,
  given?: Readonly<Record<string, unknown>>,
): Promise<ClassifyingModule> {
  const opened = await openAmong(records, wanted, options, where);
  try {
    return createWithWeights(opened, given);
  } finally {
    opened.state.dispose();
  }
}
