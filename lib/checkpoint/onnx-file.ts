/**
 * Whether a file is an ONNX model, which is no checkpoint: the first fields of onnx.proto's ModelProto, in the wire format
 * of Protocol Buffers. Reads a few bytes of the beginning and nothing else.
 */

const IR_VERSION = 1;
/** Fields that are text, bytes or messages: opset_import, producer_name, graph, metadata_props, ... */
const DELIMITED = new Set([2, 3, 4, 6, 7, 8, 14, 20, 25]);
const MODEL_VERSION = 5;
/** No version of the format has had a larger one, and none will for long. */
const LARGEST_IR_VERSION = 100;

/**
 * True for what begins with a version and goes on with fields that a model has, as every exporter writes them.
 *
 * @param head - its first bytes
 * @param size - how many the file has
 */
export function looksLikeOnnx(head: Uint8Array, size: number): boolean {
  let position = 0;
  let fields = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 49; shift += 7) {
      const byte = head[position++] ?? 0x80;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return NaN;
  };
  const isCut = (): boolean => position > head.length;
  while (position < head.length) {
    const tag = varint();
    const isDelimited = (tag & 7) === 2 && DELIMITED.has(tag >>> 3);
    if (fields === 0) {
      const version = varint();
      if (tag !== IR_VERSION << 3 || !(version > 0 && version <= LARGEST_IR_VERSION)) return false;
    } else if (isDelimited) {
      const length = varint();
      if (!isCut() && length > size - position) return false;
      position += length;
    } else if (tag === MODEL_VERSION << 3) varint();
    else if (!isCut()) return false;
    if (isCut()) break;
    fields++;
  }
  return fields > 0 && (fields > 1 || isCut());
}
