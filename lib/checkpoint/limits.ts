/**
 * The bounds that keep an untrusted checkpoint from taking more memory or time than an honest one could need.
 * Each is far above what PyTorch writes for the largest network of this library (se_resnet152: 1,032 tensors,
 * a pickle of 150 KB) and low enough that the worst file stays within a few hundred megabytes and seconds.
 * Exceeding one is ERR_SENET_CHECKPOINT_LIMIT. Nothing here knows a file format.
 */

/** Bytes of one pickle; it alone is read into memory. Training state with long Python lists stays below 10 MB. */
export const MAX_PICKLE_BYTES = 64 * 1024 * 1024;

/** Opcodes of one pickle: each may make one object of about 100 bytes, so this bounds the heap (a tensor takes about 25). */
export const MAX_PICKLE_OPCODES = 4_000_000;

/** Highest index of a memo entry; PyTorch numbers them from 0 without gaps. */
export const MAX_MEMO_INDEX = 4_000_000;

/** Elements and bytes that calls such as `set(list)` or `bytearray(bytes)` may copy in one pickle: a memo bomb copies the same list again and again. */
export const MAX_COPIED_ITEMS = 32 * 1024 * 1024;

/** Digits or bytes of one integer: parsing is quadratic, and PyTorch's own longest (a random state's seed) has 20 digits. */
export const MAX_INTEGER_DIGITS = 1024;

/** Characters of a line in a text opcode, the name of a global above all. */
export const MAX_LINE_BYTES = 64 * 1024;

/** Levels of containers inside each other; optimisers nest about six. */
export const MAX_DEPTH = 200;

/** Tensors in one file. */
export const MAX_TENSORS = 200_000;

/** Dimensions of a tensor: LibTorch's own limit for most operators. */
export const MAX_RANK = 64;

/** Elements of a view that shows elements of its storage more than once (stride 0): a few bytes of file may claim petabytes. */
export const MAX_REPEATED_ELEMENTS = 2 ** 28;

/** Entries of a zip archive: one for each storage and a handful of others. */
export const MAX_ZIP_ENTRIES = MAX_TENSORS + 64;

/** Bytes of a zip archive's central directory, which is held in memory as names. */
export const MAX_ZIP_DIRECTORY_BYTES = 64 * 1024 * 1024;

/** Bytes of the JSON header of a safetensors file; the format allows 100 MB, which would block the thread for seconds. */
export const MAX_SAFETENSORS_HEADER_BYTES = 32 * 1024 * 1024;

/** State dicts may sit under a wrapper inside a wrapper; more levels than this are not searched. */
export const MAX_WRAPPERS = 4;
