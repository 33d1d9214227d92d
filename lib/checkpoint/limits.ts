/**
 * The bounds that keep an untrusted checkpoint from taking more memory or time than an honest one could need.
 * Each is far above what PyTorch writes for the largest network of this library (se_resnet152: 1,032 tensors,
 * a pickle of 150 KB) and low enough that the worst file takes less than 300 MB beyond its tensors' bytes.
 * Exceeding one is ERR_SENET_CHECKPOINT_LIMIT. Nothing here knows a file format.
 */

/**
 * Bytes of JavaScript's heap that one file may take, as `COST` counts them, the bytes of its description included. What
 * became garbage meanwhile counts too, so the heap never holds more.
 */
export const MAX_HEAP_BYTES = 128 * 1024 * 1024;

/** What values cost on V8's heap, in bytes, as measured on Node 20: with the place of each on a stack or in a list. */
export const COST = {
  /** One opcode: a place on the stack, and one in the list or tuple that takes it from there. */
  slot: 24,
  list: 64,
  /** The first item of a list makes room for 17. */
  firstItem: 136,
  tuple: 64,
  dict: 200,
  set: 160,
  /** A place in a Map or Set, with its part of the tables that are outgrown. */
  entry: 56,
  bytes: 224,
  string: 32,
  number: 16,
  object: 72,
  /** A page of the memo, however little of it is used. */
  page: 32 * 1024,
  /** A tensor and its storage as records, of up to a handful of dimensions. */
  tensor: 400,
  /** A Tensor, what it took to have it read, and its place in a table. */
  handle: 600,
  /** An entry of a zip directory, besides its name. */
  zipEntry: 320,
} as const;

/**
 * Steps between two turns of the event loop. A step is an opcode, an item that is copied, an entry that is walked over,
 * or 128 bytes of text: a microsecond or a few.
 */
export const SLICE_STEPS = 2048;

/** Milliseconds after which a slice ends too, and the steps between two looks at the clock. */
export const SLICE_MS = 8;
export const STEPS_PER_LOOK = 64;

/** Bytes of heap, as `COST` counts them, after which a slice ends and what survives of them is collected. */
export const YOUNG_BYTES = 1024 * 1024;

/** Bytes of one text of a file, such as the elements of an array of NumPy's in protocol 2. */
export const MAX_TEXT_BYTES = 16 * 1024 * 1024;

/** Bytes of text or of an array that are decoded or copied in one step. */
export const PIECE_BYTES = 512 * 1024;

/** Bytes of one pickle; it alone is read into memory. Training state with long Python lists stays below 10 MB. */
export const MAX_PICKLE_BYTES = 64 * 1024 * 1024;

/** Opcodes of one pickle, which bounds the time (a tensor takes about 25). */
export const MAX_PICKLE_OPCODES = 4_000_000;

/** Highest index of a memo entry; PyTorch numbers them from 0 without gaps. */
export const MAX_MEMO_INDEX = 4_000_000;

/** Digits or bytes of one integer: parsing is quadratic, and PyTorch's own longest (a random state's seed) has 20 digits. */
export const MAX_INTEGER_DIGITS = 1024;

/** Characters of a line in a text opcode, the name of a global above all. */
export const MAX_LINE_BYTES = 64 * 1024;

/** Levels of containers inside each other; optimisers nest about six. */
export const MAX_DEPTH = 200;

/** Tensors in one file. */
export const MAX_TENSORS = 32_768;

/** Tensors over one storage: they are made together, in one step. */
export const MAX_VIEWS = 8192;

/**
 * Items of one list, and elements of one Set and entries of one Map that users are given: their memory is moved in one step
 * when it has to grow. An honest file has lists of some 100,000 numbers, one for each step of a training. A dictionary that only
 * lies beside what is loaded, such as a vocabulary, has no other limit than the heap's: some 700,000 texts and numbers.
 */
export const MAX_ITEMS = 524_288;
export const MAX_ENTRIES = 131_072;

/**
 * Numbers among the keys of one dictionary or set that V8 keeps in one place of it, once that has some thousand entries.
 * Of a million numbers that nobody chose, one place gets about 30.
 */
export const MAX_COLLISIONS = 256;

/** What `_metadata` says of one module; PyTorch's says its version. */
export const MAX_FACTS = 256;

/** Dimensions of a tensor: LibTorch's own limit for most operators. */
export const MAX_RANK = 64;

/** Elements of a view that shows elements of its storage more than once (stride 0): a few bytes of file may claim petabytes. */
export const MAX_REPEATED_ELEMENTS = 2 ** 28;

/** Entries of a zip archive: one for each storage and a handful of others. */
export const MAX_ZIP_ENTRIES = MAX_TENSORS + 64;

/** Bytes of a zip archive's central directory, which is held in memory as names. */
export const MAX_ZIP_DIRECTORY_BYTES = 16 * 1024 * 1024;

/** Bytes of the JSON header of a safetensors file; the format allows 100 MB. */
export const MAX_SAFETENSORS_HEADER_BYTES = 32 * 1024 * 1024;

/** Bytes of one text of that header, which is read in one step. */
export const MAX_HEADER_TEXT_BYTES = 1024 * 1024;

/** Entries of `__metadata__` of a safetensors file. */
export const MAX_METADATA = 16_384;

/** State dicts may sit under a wrapper inside a wrapper; more levels than this are not searched. */
export const MAX_WRAPPERS = 4;

/** A deflated archive may hold so many bytes of tensors for each of its own, and `MAX_INFLATED_BYTES` besides: weights hardly shrink. */
export const MAX_INFLATION = 16;
export const MAX_INFLATED_BYTES = 64 * 1024 * 1024;
