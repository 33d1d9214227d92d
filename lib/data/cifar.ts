/**
 * CIFAR-10 and CIFAR-100 (Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html) from the binary or the Python
 * version, unpacked or as the archive that is offered for download. Binary records are the label (CIFAR-100: coarse,
 * then fine) and 3 x 32 x 32 bytes; the Python version's files are pickles of dictionaries with a NumPy array.
 */
import { makeError } from '../errors';
import { printable } from '../printable';
import { checkString, describe } from '../tensor/options';
import { boolean, oneOf, orElse, readOptions, signal } from '../tensor/rules';
import { readWanted, type FoundFile, type FoundFiles } from './archive';
import { PixelDataset } from './dataset';
import { ByteArray, lookUp, readNumpyPickle, textOf } from './numpy-pickle';

export interface CifarOptions {
  /** The training set, or the test set. Default true. */
  train?: boolean;
  signal?: AbortSignal;
}

export interface Cifar100Options extends CifarOptions {
  /** The 100 classes, or the 20 groups of them. Default 'fine'. */
  labels?: 'fine' | 'coarse';
}

/** How one of the two data sets is stored. */
interface Layout {
  readonly name: string;
  /** Folders that the archives unpack to. */
  readonly folders: readonly string[];
  /** Base names of the Python version; the binary version adds `.bin`. */
  readonly train: readonly string[];
  readonly test: readonly string[];
  readonly recordsOfFile: (part: 'train' | 'test') => number;
  /** Bytes of labels in front of a binary record, and which of them counts. */
  readonly labelBytes: number;
  readonly labelAt: number;
  /** Key of the labels, and of their names, in the Python version. */
  readonly labelsKey: string;
  readonly namesKey: string;
  readonly namesFile: { readonly binary: string; readonly python: string };
  readonly classes: number;
}

const PIXELS = 3 * 32 * 32;
/** Of a file with the names of the classes. */
const MAX_NAMES_BYTES = 64 * 1024;
/** Pickles of the first protocols write a byte above 127 as two, and each file name and label beside the pixels. */
const PICKLED = 2;

const CIFAR10: Layout = {
  name: 'CIFAR-10',
  folders: ['cifar-10-batches-bin', 'cifar-10-batches-py'],
  train: [1, 2, 3, 4, 5].map((number) => `data_batch_${number}`),
  test: ['test_batch'],
  recordsOfFile: () => 10_000,
  labelBytes: 1,
  labelAt: 0,
  labelsKey: 'labels',
  namesKey: 'label_names',
  namesFile: { binary: 'batches.meta.txt', python: 'batches.meta' },
  classes: 10,
};

function cifar100(labels: 'fine' | 'coarse'): Layout {
  return {
    name: 'CIFAR-100',
    folders: ['cifar-100-binary', 'cifar-100-python'],
    train: ['train'],
    test: ['test'],
    recordsOfFile: (part) => (part === 'train' ? 50_000 : 10_000),
    labelBytes: 2,
    labelAt: labels === 'fine' ? 1 : 0,
    labelsKey: `${labels}_labels`,
    namesKey: `${labels}_label_names`,
    namesFile: { binary: `${labels}_label_names.txt`, python: 'meta' },
    classes: labels === 'fine' ? 100 : 20,
  };
}

const RULES = { train: orElse(true, boolean), signal };

/** CIFAR-10 in memory: 50,000 or 10,000 images, uint8, 3 x 32 x 32, of 10 classes. */
export class Cifar10 extends PixelDataset {
  /**
   * @param source - `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz`, what one of them unpacks to, or the folder of that
   * @throws (rejects) ERR_SENET_DATA_FORMAT (not CIFAR-10, damaged or truncated), ERR_SENET_LABELS,
   *   ERR_SENET_CHECKPOINT_UNSAFE (a pickle that would run code), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_ABORTED
   */
  static async open(source: string, options?: CifarOptions): Promise<Cifar10> {
    const where = 'Cifar10.open';
    const { train, signal } = readOptions(options, RULES, where);
    return new Cifar10(...(await read(source, CIFAR10, train, signal, where)));
  }
}

/** CIFAR-100 in memory: 50,000 or 10,000 images, uint8, 3 x 32 x 32, of 100 classes or their 20 groups. */
export class Cifar100 extends PixelDataset {
  /**
   * @param source - `cifar-100-binary.tar.gz` or `cifar-100-python.tar.gz`, what one of them unpacks to, or the folder of that
   * @throws (rejects) as `Cifar10.open`
   */
  static async open(source: string, options?: Cifar100Options): Promise<Cifar100> {
    const where = 'Cifar100.open';
    const rules = { ...RULES, labels: orElse('fine', oneOf(['fine', 'coarse'])) };
    const { train, signal, labels } = readOptions(options, rules, where);
    return new Cifar100(...(await read(source, cifar100(labels), train, signal, where)));
  }
}

type Contents = ConstructorParameters<typeof PixelDataset>;

async function read(
  source: string,
  layout: Layout,
  train: boolean,
  signal: AbortSignal | undefined,
  where: string,
): Promise<Contents> {
  checkString(source, `${where}: source`);
  const part = train ? 'train' : 'test';
  const python = layout[part];
  const binary = python.map((name) => `${name}.bin`);
  const { namesFile } = layout;
  const wanted = new Set([...python, ...binary, namesFile.binary, namesFile.python]);
  const found = await readWanted(source, layout.folders, limitsOf(layout), wanted, signal);
  const isBinary = binary.some((name) => found.files.has(name));
  const files = (isBinary ? binary : python).map((name) => fileOf(found, name, source, layout));
  const records = layout.recordsOfFile(part);
  const pixels = new Uint8Array(files.length * records * PIXELS);
  const labels: number[] = [];
  const readRecords = isBinary ? readBinary : readPython;
  for (const [index, file] of files.entries()) {
    const target = pixels.subarray(index * records * PIXELS, (index + 1) * records * PIXELS);
    for (const label of await readRecords(file, layout, records, target)) labels.push(label);
  }
  const classes = isBinary ? namesFromText(found, layout) : await namesFromPickle(found, layout);
  return [pixels, labels, [3, 32, 32], classes];
}

/** Most bytes of each file of the data set. */
function limitsOf(layout: Layout): ReadonlyMap<string, number> {
  const limits = new Map([
    [layout.namesFile.binary, MAX_NAMES_BYTES],
    [layout.namesFile.python, MAX_NAMES_BYTES],
  ]);
  for (const part of ['train', 'test'] as const) {
    const records = layout.recordsOfFile(part);
    for (const name of layout[part]) {
      // Too long by a little is said of the file's contents.
      limits.set(`${name}.bin`, records * (layout.labelBytes + PIXELS) + MAX_NAMES_BYTES);
      limits.set(name, records * PIXELS * PICKLED);
    }
  }
  return limits;
}

function fileOf(found: FoundFiles, name: string, source: string, layout: Layout): FoundFile {
  const file = found.files.get(name);
  if (file !== undefined) return file;
  const seen =
    found.seen.length === 0
      ? 'nothing'
      : found.seen
          .slice(0, 10)
          .map((one) => `'${printable(one, 40)}'`)
          .join(', ');
  throw makeError(
    'ERR_SENET_DATA_FORMAT',
    `${printable(source, 1000)}: expected ${layout.name} with the file '${name}', found ${seen}`,
  );
}

/** Copies the pixels to `target` and gives the labels. */
function readBinary(file: FoundFile, layout: Layout, records: number, target: Uint8Array): number[] {
  const size = layout.labelBytes + PIXELS;
  const { bytes, label } = file;
  if (bytes.length !== records * size) {
    throw makeError(
      'ERR_SENET_DATA_FORMAT',
      `${label}: ${bytes.length < records * size ? 'truncated' : 'too long'}: expected ${records * size} bytes ` +
        `(${records} records of ${layout.name}), found ${bytes.length}`,
    );
  }
  return Array.from({ length: records }, (_, record) => {
    const start = record * size;
    target.set(bytes.subarray(start + layout.labelBytes, start + size), record * PIXELS);
    return checkLabel(bytes[start + layout.labelAt], record, layout, label);
  });
}

async function readPython(
  file: FoundFile,
  layout: Layout,
  records: number,
  target: Uint8Array,
): Promise<number[]> {
  const { label } = file;
  const content = await readNumpyPickle(file.bytes, label);
  const data = lookUp(content, 'data');
  const labels = lookUp(content, layout.labelsKey);
  if (!(data instanceof ByteArray) || !Array.isArray(labels)) {
    throw makeError(
      'ERR_SENET_DATA_FORMAT',
      `${label}: expected a dictionary with the array 'data' and the list '${layout.labelsKey}'`,
    );
  }
  if (data.bytes.length !== records * PIXELS || labels.length !== records) {
    throw makeError(
      'ERR_SENET_DATA_FORMAT',
      `${label}: expected ${records} images (${records * PIXELS} bytes) and as many labels, ` +
        `found ${data.bytes.length} bytes and ${labels.length} labels`,
    );
  }
  target.set(data.bytes);
  return labels.map((value, record) => checkLabel(value, record, layout, label));
}

function checkLabel(value: unknown, record: number, layout: Layout, label: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < layout.classes)
    return value;
  throw makeError(
    'ERR_SENET_DATA_FORMAT',
    `${label}: record ${record}: expected a label from 0 to ${layout.classes - 1}, found ${describe(value)}`,
  );
}

/** The names that the data set brings; their numbers if that file is not there. */
function namesFromText(found: FoundFiles, layout: Layout): readonly string[] {
  const file = found.files.get(layout.namesFile.binary);
  if (file === undefined) return numbers(layout);
  return checkNames(
    file.bytes
      .toString('utf8')
      .split('\n')
      .map((line) => line.trim())
      .filter(Boolean),
    file,
    layout,
  );
}

async function namesFromPickle(found: FoundFiles, layout: Layout): Promise<readonly string[]> {
  const file = found.files.get(layout.namesFile.python);
  if (file === undefined) return numbers(layout);
  const names = lookUp(await readNumpyPickle(file.bytes, file.label), layout.namesKey);
  return checkNames(Array.isArray(names) ? names.map((name) => textOf(name) ?? '') : [], file, layout);
}

function checkNames(names: readonly string[], file: FoundFile, layout: Layout): readonly string[] {
  if (names.length === layout.classes) return names;
  throw makeError(
    'ERR_SENET_DATA_FORMAT',
    `${file.label}: expected the names of ${layout.classes} classes, found ${names.length}`,
  );
}

function numbers(layout: Layout): readonly string[] {
  return Array.from({ length: layout.classes }, (_, label) => String(label));
}
