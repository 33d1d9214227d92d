/**
 * A reader of pickles that executes nothing. It knows the opcodes of protocols 0 to 5 and builds inert values from
 * them; which globals exist and what calling one means is asked of a `PickleHost`, and there is no way from a name in
 * the file to a JavaScript function other than that host's table. Written against CPython's `pickletools`, which
 * documents every opcode. Must not know PyTorch or files.
 *
 * The threat: whoever wrote the file chose every byte of it, and a pickle is a program. What a file may do here is make
 * values. A global that the host does not know is only its name, and what a pickle does with it (a call, a state, items,
 * keys) is written down in an `UnknownObject` that has no behaviour: no module is looked up, nothing is called, no property
 * is set by a name of the file, and every dictionary is a Map. Whether such an object may be part of what was asked for is
 * decided by those who read the value: never as a tensor, nor as an entry of a state dict.
 *
 * Nor may it exhaust the process: lengths are compared with the bytes that are there before anything is made, nothing
 * recurses, what each value costs in JavaScript is charged to a `Budget` before it is made, opcodes, memo indices and
 * digits are counted against `limits.ts`, and reading is a generator that yields after each slice of its work.
 */
import { TextDecoder } from 'node:util';
import { isSet } from '../brands';
import { copyPieces, inSlices, type Budget, type Sliced } from './budget';
import { Collisions } from './collisions';
import {
  COST,
  MAX_COLLISIONS,
  MAX_ENTRIES,
  MAX_ITEMS,
  MAX_MEMO_INDEX,
  MAX_PICKLE_OPCODES,
  MAX_TEXT_BYTES,
  PIECE_BYTES,
  SLICE_STEPS,
} from './limits';
import { Pages } from './pages';
import { decodeUtf8, PickleInput, unescape } from './pickle-input';
import { checkpointError } from './problems';
import { Dict, GlobalName, LongText, Tuple, UnknownObject, kindOf, type Value } from './values';

/** How a host makes a value that is larger than a few words. */
export interface Making {
  /** Counts bytes of heap before they are taken. */
  charge(bytes: number): void;
  /** Work on a value that the next opcode may rely on, in slices. */
  defer(work: Sliced<void>): void;
  /** Lets the reader put the items into an empty container, in slices: keys and values in turn for a Dict. */
  fill<T extends Value[] | Set<Value> | Dict>(target: T, items: Iterable<Value>): T;
}

/** What a pickle may ask for besides plain values. `at` is the offset in the file, for messages. */
export interface PickleHost {
  /** The inert stand-in for a global, known or not, or an error that names it. */
  findGlobal(module: string, name: string, at: number): GlobalName;
  /** What calling a known global gives. */
  call(callable: GlobalName, args: readonly Value[], at: number, making: Making): Value;
  /** Applies the state of a BUILD opcode to `target`. */
  build(target: Value, state: Value, at: number, making: Making): void;
  /** The storage that a persistent id names. */
  findPersistent(id: Value, at: number): Value;
}

export interface ReadPickle {
  readonly value: Value;
  /** Index in `bytes` of the first byte after the pickle. */
  readonly end: number;
}

/** What is read, and for whom. */
export interface PickleSource {
  readonly bytes: Uint8Array;
  readonly host: PickleHost;
  readonly budget: Budget;
  /** What messages call the file. */
  readonly label: string;
  /** Offset of `bytes[0]` in the file, for messages. Default 0. */
  readonly base?: number;
  /** Bytes of the longest text. Default MAX_TEXT_BYTES. */
  readonly maxText?: number;
}

/**
 * Reads the pickle that begins at index `start`; the event loop turns meanwhile.
 * @throws (rejects) EndOfPickle; ERR_SENET_CHECKPOINT_FORMAT, _UNSAFE (extension codes, and by the host), _LIMIT,
 *   _UNSUPPORTED (by the host)
 */
export function readPickle(source: PickleSource, start = 0): Promise<ReadPickle> {
  return inSlices(source.budget, new PickleReader(source, start).run());
}

class PickleReader extends PickleInput implements Making {
  private readonly host: PickleHost;
  private readonly maxText: number;
  /** What an opcode has left to do before the next one: more than a slice, where the file says so. */
  private pending: Sliced<void> | null = null;
  private readonly stack = new Pages<Value>();
  /** Heights of the stack at the open marks. */
  private readonly marks: number[] = [];
  private floor = 0;
  private readonly memo = new Pages<Value>();
  private memoized = 0;
  private readonly collisions = new Collisions((bytes) => {
    this.charge(bytes);
  });

  constructor(source: PickleSource, start: number) {
    super(source, start);
    this.host = source.host;
    this.maxText = source.maxText ?? MAX_TEXT_BYTES;
  }

  *run(): Sliced<ReadPickle> {
    const { budget } = this;
    for (let opcodes = 0; opcodes < MAX_PICKLE_OPCODES; opcodes++) {
      this.opcodeAt = this.position;
      const opcode = this.byte();
      if (opcode === 0x2e /* STOP '.' */) return { value: this.pop(), end: this.position };
      this.charge(COST.slot);
      this.step(opcode);
      if (budget.spend(1 + (Math.min(this.position - this.opcodeAt, PIECE_BYTES) >> 7))) yield;
      if (this.pending !== null) {
        const { pending } = this;
        this.pending = null;
        yield* pending;
      }
    }
    throw this.limit(`a pickle of more than ${MAX_PICKLE_OPCODES} opcodes`);
  }

  fill<T extends Value[] | Set<Value> | Dict>(target: T, items: Iterable<Value>): T {
    this.pending = this.filling(target, items[Symbol.iterator]());
    return target;
  }

  defer(work: Sliced<void>): void {
    this.pending = work;
  }

  private *filling(target: Value[] | Set<Value> | Dict, items: Iterator<Value>): Sliced<void> {
    for (let next = items.next(); next.done !== true; next = items.next()) {
      if (Array.isArray(target)) this.append(target, next.value);
      else if (isSet(target)) {
        if (target.size >= MAX_ENTRIES) throw this.limit(`a set of more than ${MAX_ENTRIES} elements`);
        this.charge(COST.entry);
        target.add(this.keyOf(target, next.value));
      } else {
        const second = items.next();
        if (second.done === true) throw this.format('a key without a value');
        this.setItem(target, next.value, second.value);
      }
      if (this.budget.spend(1)) yield;
    }
  }

  private append(list: Value[], item: Value): void {
    if (list.length >= MAX_ITEMS) throw this.limit(`a list of more than ${MAX_ITEMS} items`);
    this.charge(list.length === 0 ? COST.firstItem : COST.slot);
    list.push(item);
  }

  private step(opcode: number): void {
    const { stack } = this;
    switch (opcode) {
      case 0x80: {
        // PROTO
        const protocol = this.byte();
        if (protocol > 5) throw this.format(`pickle protocol ${protocol}, and 0 to 5 are read`);
        return;
      }
      case 0x95: {
        // FRAME: only a hint for streaming, but it may not promise more than there is
        this.need(this.length64());
        return;
      }

      // the stack and the memo
      case 0x28: // MARK '('
        this.marks.push(stack.length);
        this.floor = stack.length;
        return;
      case 0x30: // POP '0'
        if (stack.length === this.floor && this.marks.length > 0) this.popMark();
        else this.pop();
        return;
      case 0x31: // POP_MARK '1'
        this.popMark();
        return;
      case 0x32: // DUP '2'
        stack.push(this.top());
        return;
      case 0x71: {
        // BINPUT 'q'
        this.put(this.byte());
        return;
      }
      case 0x72: {
        // LONG_BINPUT 'r'
        this.put(this.uint32());
        return;
      }
      case 0x70: {
        // PUT 'p'
        this.put(this.textIndex());
        return;
      }
      case 0x94: {
        // MEMOIZE
        this.put(this.memoized);
        return;
      }
      case 0x68: {
        // BINGET 'h'
        this.get(this.byte());
        return;
      }
      case 0x6a: {
        // LONG_BINGET 'j'
        this.get(this.uint32());
        return;
      }
      case 0x67: {
        // GET 'g'
        this.get(this.textIndex());
        return;
      }

      // plain values
      case 0x4e: // NONE 'N'
        stack.push(null);
        return;
      case 0x88: // NEWTRUE
        stack.push(true);
        return;
      case 0x89: // NEWFALSE
        stack.push(false);
        return;
      case 0x4b: // BININT1 'K'
        stack.push(this.byte());
        return;
      case 0x4d: // BININT2 'M'
        stack.push(this.buffer.readUInt16LE(this.take(2)));
        return;
      case 0x4a: // BININT 'J'
        stack.push(this.buffer.readInt32LE(this.take(4)));
        return;
      case 0x8a: // LONG1
        stack.push(this.long(this.byte()));
        return;
      case 0x8b: {
        // LONG4
        const length = this.buffer.readInt32LE(this.take(4));
        if (length < 0) throw this.format(`an integer of ${length} bytes`);
        stack.push(this.long(length));
        return;
      }
      case 0x49: // INT 'I'
        stack.push(this.textInteger(true));
        return;
      case 0x4c: // LONG 'L'
        stack.push(this.textInteger(false));
        return;
      case 0x47: // BINFLOAT 'G'
        this.charge(COST.number);
        stack.push(this.buffer.readDoubleBE(this.take(8)));
        return;
      case 0x46: // FLOAT 'F'
        stack.push(this.textFloat());
        return;
      case 0x58: // BINUNICODE 'X'
        this.unicode(this.uint32());
        return;
      case 0x8c: // SHORT_BINUNICODE
        this.unicode(this.byte());
        return;
      case 0x8d: // BINUNICODE8
        this.unicode(this.length64());
        return;
      case 0x56: // UNICODE 'V'
        stack.push(unescape(this.line('utf8')));
        return;
      case 0x55: // SHORT_BINSTRING 'U'
        this.python2String(this.byte());
        return;
      case 0x54: {
        // BINSTRING 'T'
        const length = this.buffer.readInt32LE(this.take(4));
        if (length < 0) throw this.format(`a string of ${length} bytes`);
        this.python2String(length);
        return;
      }
      case 0x53: // STRING 'S'
        stack.push(this.quotedString());
        return;
      case 0x43: // SHORT_BINBYTES 'C'
        this.bytes(this.byte());
        return;
      case 0x42: // BINBYTES 'B'
        this.bytes(this.uint32());
        return;
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        this.bytes(this.length64());
        return;

      // containers
      case 0x29: // EMPTY_TUPLE ')'
        this.charge(COST.tuple);
        stack.push(new Tuple([]));
        return;
      case 0x85: {
        // TUPLE1
        this.tuple(1);
        return;
      }
      case 0x86: {
        // TUPLE2
        this.tuple(2);
        return;
      }
      case 0x87: {
        // TUPLE3
        this.tuple(3);
        return;
      }
      case 0x74: // TUPLE 't'
        this.charge(COST.tuple);
        stack.push(new Tuple(this.listOf(this.popMark())));
        return;
      case 0x5d: // EMPTY_LIST ']'
        this.charge(COST.list);
        stack.push([]);
        return;
      case 0x6c: // LIST 'l'
        this.charge(COST.list);
        stack.push(this.listOf(this.popMark()));
        return;
      case 0x61: {
        // APPEND 'a'
        const item = this.pop();
        this.append(this.topList(), item);
        return;
      }
      case 0x65: {
        // APPENDS 'e'
        const items = this.popMark();
        this.fill(this.topList(), inOrder(items));
        return;
      }
      case 0x7d: // EMPTY_DICT '}'
        stack.push(this.newDict());
        return;
      case 0x64: {
        // DICT 'd'
        const items = this.popMark();
        stack.push(this.fill(this.newDict(), inOrder(items)));
        return;
      }
      case 0x73: {
        // SETITEM 's'
        const value = this.pop();
        const key = this.pop();
        this.setItem(this.topDict(), key, value);
        return;
      }
      case 0x75: {
        // SETITEMS 'u'
        const items = this.popMark();
        this.fill(this.topDict(), inOrder(items));
        return;
      }
      case 0x8f: // EMPTY_SET
        this.charge(COST.set);
        stack.push(new Set<Value>());
        return;
      case 0x90: {
        // ADDITEMS
        const items = this.popMark();
        this.fill(this.topSet(), inOrder(items));
        return;
      }
      case 0x91: {
        // FROZENSET
        const items = this.popMark();
        this.charge(COST.set);
        stack.push(this.fill(new Set<Value>(), inOrder(items)));
        return;
      }

      // what would execute code in Python
      case 0x63: {
        // GLOBAL 'c'
        stack.push(this.global());
        return;
      }
      case 0x93: {
        // STACK_GLOBAL
        const name = this.pop();
        const module = this.pop();
        if (typeof module !== 'string' || typeof name !== 'string') {
          throw this.format(`a global named by ${kindOf(module)} and ${kindOf(name)}`);
        }
        this.charge(COST.object + 2 * (module.length + name.length));
        stack.push(this.host.findGlobal(module, name, this.here()));
        return;
      }
      case 0x69: {
        // INST 'i'
        const callable = this.global();
        stack.push(this.call(callable, new Tuple(this.arguments(this.popMark()))));
        return;
      }
      case 0x6f: {
        // OBJ 'o'
        const items = this.arguments(this.popMark());
        const callable = items.shift();
        if (callable === undefined) throw this.format('an object without a class');
        stack.push(this.call(callable, new Tuple(items)));
        return;
      }
      case 0x52: // REDUCE 'R'
      case 0x81: {
        // NEWOBJ
        const args = this.pop();
        stack.push(this.call(this.pop(), args));
        return;
      }
      case 0x92: {
        // NEWOBJ_EX
        const keywords = this.pop();
        const args = this.pop();
        if (!(keywords instanceof Dict))
          throw this.format(`keyword arguments that are a ${kindOf(keywords)}`);
        stack.push(this.call(this.pop(), args, keywords));
        return;
      }
      case 0x62: {
        // BUILD 'b'
        const state = this.pop();
        const target = this.top();
        if (target instanceof UnknownObject) target.state = state;
        else this.host.build(target, state, this.here(), this);
        return;
      }
      case 0x51: // BINPERSID 'Q'
        stack.push(this.host.findPersistent(this.pop(), this.here()));
        return;
      case 0x50: // PERSID 'P'
        stack.push(this.host.findPersistent(this.line('utf8'), this.here()));
        return;
      case 0x82: // EXT1
      case 0x83: // EXT2
      case 0x84: // EXT4
        throw checkpointError(
          'ERR_SENET_CHECKPOINT_UNSAFE',
          this.label,
          'the pickle asks for a global by a number of the copyreg extension registry; nothing was executed',
          this.here(),
        );
      default:
        throw this.format(`no pickle opcode 0x${opcode.toString(16).padStart(2, '0')} is known`);
    }
  }

  // ---- globals and texts ----

  /** A global in text: two lines. */
  private global(): GlobalName {
    const module = this.line('utf8');
    const name = this.line('utf8');
    this.charge(COST.object + 2 * (module.length + name.length));
    return this.host.findGlobal(module, name, this.here());
  }

  private unicode(length: number): void {
    this.need(length);
    if (length > this.maxText)
      throw this.limit(`a text of ${length} bytes, and at most ${this.maxText} are read`);
    this.charge(COST.string + 2 * length);
    const at = this.take(length);
    const notUtf8 = (): Error => this.format('a string that is not UTF-8');
    if (length > PIECE_BYTES) {
      this.pending = this.decoding(at, length, () => {
        throw notUtf8();
      });
      return;
    }
    const text = this.buffer.toString('utf8', at, at + length);
    // U+FFFD stands for bytes that are no UTF-8, unless the file spells it out.
    if (text.includes('\ufffd') && decodeUtf8(this.buffer.subarray(at, at + length)) === null)
      throw notUtf8();
    this.stack.push(text);
  }

  /** @param otherwise - what is done if it is no UTF-8 */
  private *decoding(at: number, length: number, otherwise: () => Sliced<void>): Sliced<void> {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    const pieces: string[] = [];
    for (let done = 0; done < length; done += PIECE_BYTES) {
      const end = Math.min(done + PIECE_BYTES, length);
      try {
        pieces.push(decoder.decode(this.buffer.subarray(at + done, at + end), { stream: end < length }));
      } catch {
        yield* otherwise();
        return;
      }
      if (this.budget.spend(SLICE_STEPS)) yield;
    }
    this.stack.push(new LongText(pieces, length));
  }

  /** A `str` of Python 2: text where it is UTF-8, as `torch.load` decodes it, else bytes. */
  private python2String(length: number): void {
    this.need(length);
    if (length > this.maxText) {
      this.bytes(length);
      return;
    }
    this.charge(COST.bytes + 2 * length);
    const at = this.take(length);
    if (length > PIECE_BYTES) {
      this.pending = this.decoding(at, length, () => this.copying(at, length));
      return;
    }
    const bytes = this.buffer.subarray(at, at + length);
    this.stack.push(decodeUtf8(bytes) ?? new Uint8Array(bytes));
  }

  private quotedString(): Value {
    const line = this.line('latin1').trim();
    const quote = line[0];
    if (line.length < 2 || (quote !== "'" && quote !== '"') || line.at(-1) !== quote) {
      throw this.format('a string without quotes');
    }
    this.charge(COST.bytes + 2 * line.length);
    const bytes = Buffer.from(unescape(line.slice(1, -1)), 'latin1');
    return decodeUtf8(bytes) ?? new Uint8Array(bytes);
  }

  private bytes(length: number): void {
    this.need(length);
    this.charge(COST.bytes + length);
    const at = this.take(length);
    if (length > PIECE_BYTES) this.pending = this.copying(at, length);
    else this.stack.push(new Uint8Array(this.buffer.subarray(at, at + length)));
  }

  private *copying(at: number, length: number): Sliced<void> {
    const copy = new Uint8Array(length);
    yield* copyPieces(copy, this.buffer.subarray(at, at + length));
    this.stack.push(copy);
  }

  // ---- the stack ----

  private pop(): Value {
    if (this.stack.length <= this.floor) throw this.format('a value is taken from an empty stack');
    return this.stack.pop();
  }

  private top(): Value {
    if (this.stack.length <= this.floor) throw this.format('a value is needed and the stack is empty');
    return this.stack.get(this.stack.length - 1) as Value;
  }

  /** Pages of what lies above the last mark. */
  private popMark(): Value[][] {
    const mark = this.marks.pop();
    if (mark === undefined) throw this.format('an end without a mark');
    this.floor = this.marks.at(-1) ?? 0;
    const count = this.stack.length - mark;
    if (count > MAX_ITEMS)
      throw this.limit(`${count} items for one opcode, and at most ${MAX_ITEMS} are read`);
    return count === 0 ? [] : this.stack.take(mark);
  }

  /** One list of them: at once where it is short, else filled before the next opcode. */
  private listOf(pages: readonly Value[][]): Value[] {
    return pages.length > 1 ? this.fill([], inOrder(pages)) : (pages[0] ?? []);
  }

  private arguments(pages: readonly Value[][]): Value[] {
    if (pages.length > 1) throw this.limit('a call with thousands of arguments');
    return pages[0] ?? [];
  }

  private tuple(count: number): void {
    if (this.stack.length - count < this.floor) throw this.format('a tuple of more values than there are');
    this.charge(COST.tuple);
    this.stack.push(new Tuple(this.stack.take(this.stack.length - count).flat()));
  }

  /** What APPEND and the like fill: of an unknown object, the record of what it was given. */
  private topList(): Value[] {
    const target = this.top();
    if (Array.isArray(target)) return target;
    if (!(target instanceof UnknownObject)) throw this.format(`items appended to a ${kindOf(target)}`);
    if (target.items === null) this.charge(COST.list);
    return (target.items ??= []);
  }

  private topSet(): Set<Value> | Value[] {
    const target = this.top();
    if (isSet(target)) return target;
    if (target instanceof UnknownObject) return this.topList();
    throw this.format(`items added to a ${kindOf(target)}`);
  }

  private topDict(): Dict {
    const target = this.top();
    if (target instanceof Dict) return target;
    if (!(target instanceof UnknownObject)) throw this.format(`keys set in a ${kindOf(target)}`);
    return (target.entries ??= this.newDict());
  }

  private newDict(): Dict {
    this.charge(COST.dict);
    return new Dict();
  }

  private setItem(dict: Dict, key: Value, value: Value): void {
    this.charge(COST.entry);
    // V8 tells long texts apart by comparing them, since its hash of those is their length.
    if (typeof key === 'string') this.budget.spend(key.length >> 8);
    dict.set(this.keyOf(dict, key), value);
  }

  private keyOf(table: Dict | Set<Value>, key: Value): Value {
    if (!isHashable(key, 0)) throw this.format(`a ${kindOf(key)} as a key`);
    if (!this.collisions.fits(table, key)) {
      throw this.limit(`a ${kindOf(table)} with more than ${MAX_COLLISIONS} numbers chosen to share a place`);
    }
    return key;
  }

  private put(index: number): void {
    if (index > MAX_MEMO_INDEX) throw this.limit(`memo entry ${index}`);
    this.charge(this.memo.isNewPage(index) ? COST.page : COST.slot);
    if (this.memo.get(index) === undefined) this.memoized++;
    this.memo.set(index, this.top());
  }

  private get(index: number): void {
    const value = this.memo.get(index);
    if (value === undefined) throw this.format(`memo entry ${index} does not exist`);
    this.stack.push(value);
  }

  private call(callable: Value, args: Value, keywords?: Dict): Value {
    if (!(callable instanceof GlobalName || callable instanceof UnknownObject)) {
      throw this.format(`a call of a ${kindOf(callable)}`);
    }
    if (!(args instanceof Tuple)) throw this.format(`${kindOf(callable)} called with a ${kindOf(args)}`);
    const unknown =
      callable instanceof UnknownObject ? callable.global : callable.known ? null : callable.name;
    if (unknown === null) {
      if (keywords !== undefined && keywords.size > 0) throw this.format('a call with keyword arguments');
      return this.host.call(callable as GlobalName, args.items, this.here(), this);
    }
    this.charge(COST.object);
    return new UnknownObject(nameOfObject(unknown, args.items), args.items, keywords ?? null);
  }
}

/** How Python pickles objects of classes that say nothing themselves: the class is the first argument. */
const MAKERS = new Set(['_reconstructor', '__newobj__', '__newobj_ex__'].map((name) => `copyreg.${name}`));

function nameOfObject(callable: string, args: readonly Value[]): string {
  const [made] = args;
  return MAKERS.has(callable) && made instanceof GlobalName ? made.name : callable;
}

function* inOrder(pages: readonly Value[][]): Iterable<Value> {
  for (const page of pages) yield* page;
}

/** Python's rule, with tuples of tuples up to a depth that no honest key has. */
function isHashable(key: Value, depth: number): boolean {
  if (key === null || typeof key !== 'object') return true;
  if (key instanceof Tuple) {
    return depth < 2 && key.items.length <= 16 && key.items.every((item) => isHashable(item, depth + 1));
  }
  return !(Array.isArray(key) || key instanceof Dict || isSet(key));
}
