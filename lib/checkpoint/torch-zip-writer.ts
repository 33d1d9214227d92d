/**
 * Writes PyTorch's zip container: the pickle of a value, then each storage that its tensors lie in, whole and once, as
 * `torch.save` does. Follows `torch/serialization.py` (`_save`). Knows nothing of the file that it goes to.
 */
import { makeError } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { pickleValue, type PickledTensor } from './pickle-writer';
import { ITEM_SIZE } from './tensor-record';
import { savedTensor, storagePieces, type SavedTensor } from './tensor-source';
import { ZipWriter, type ByteSink } from './zip-writer';

/** A value and its storages, ready to be written: what cannot be is refused before a file is touched. */
export class TorchArchive {
  /** Storages in the order of their keys, each by the first tensor that lies in it. */
  private readonly storages: SavedTensor[] = [];
  private readonly keys = new Map<bigint, number>();
  private readonly pickle: Buffer;

  /**
   * @param value - what `pickleValue` takes
   * @param where - the function that errors are to name
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_DISPOSED
   */
  constructor(
    value: unknown,
    private readonly where: string,
  ) {
    this.pickle = pickleValue(value, (tensor, name) => this.pickled(tensor, name), where);
  }

  async write(sink: ByteSink, folder: string): Promise<void> {
    const zip = new ZipWriter(sink);
    const small = (name: string, bytes: Buffer): Promise<void> =>
      zip.add(`${folder}/${name}`, bytes.length, [bytes]);
    await small('data.pkl', this.pickle);
    await small('.format_version', Buffer.from('1'));
    await small('.storage_alignment', Buffer.from('64'));
    await small('byteorder', Buffer.from('little'));
    for (const [key, storage] of this.storages.entries()) {
      const length = wholeElements(storage) * ITEM_SIZE[storage.dtype];
      await zip.add(`${folder}/data/${key}`, length, storagePieces(storage, 0, length));
    }
    await small('version', Buffer.from('3\n'));
    await zip.finish();
  }

  private pickled(tensor: Tensor, name: string): PickledTensor {
    const entry = savedTensor(tensor, name);
    const key = this.keys.get(entry.storageId) ?? this.storages.length;
    const first = this.storages[key];
    if (first === undefined) {
      this.keys.set(entry.storageId, key);
      this.storages.push(entry);
    } else if (first.dtype !== entry.dtype) {
      // The container has one element type for each storage.
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${this.where}: '${first.name}' (${first.dtype}) and '${name}' (${entry.dtype}) view one storage as different types, which the format cannot hold; clone one of them`,
      );
    }
    return {
      ...entry,
      storageKey: String(key),
      storageSize: wholeElements(entry),
      requiresGrad: tensor.requiresGrad,
    };
  }
}

function wholeElements({ storageBytes, dtype }: SavedTensor): number {
  return Math.floor(storageBytes / ITEM_SIZE[dtype]);
}
