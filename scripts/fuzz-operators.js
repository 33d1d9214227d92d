#!/usr/bin/env node
'use strict';
// Runs every operator of LibTorch that `ops.call` does not refuse with random extreme arguments, and names those that
// crash or hang. Operators run in child processes; one that dies is noted, and the next child goes on after it. What is
// found belongs in native/addon/refused_operators.cpp.
const { spawn } = require('node:child_process');
const { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');

const { values: options } = parseArgs({
  options: {
    tries: { type: 'string', default: '30' }, // calls of each operator
    seed: { type: 'string', default: '1' },
    minutes: { type: 'string', default: '60' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    child: { type: 'string' }, // internal: 'FIRST,LOG'
  },
});

// Longer without a new call means that the operator hangs.
const HANG_MS = 20_000;
// So that an absurd size is an error of the allocator and not the end of the machine.
const ADDRESS_SPACE_KB = 16 << 20;

/** Mulberry32: the same arguments for the same seed. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function generators(next, library) {
  const { ones, randn, zeros, empty, ops } = library;
  const pick = (choices) => choices[Math.floor(next() * choices.length)];
  const dtypes = [
    'float32',
    'float32',
    'float32',
    'float64',
    'float16',
    'bfloat16',
    'int64',
    'int64',
    'int32',
    'uint8',
    'bool',
  ];
  const integer = () =>
    pick([
      0,
      0,
      1,
      1,
      2,
      3,
      -1,
      -2,
      5,
      7,
      64,
      -100,
      1000,
      2 ** 31,
      2 ** 53 - 1,
      -(2 ** 53 - 1),
      2n ** 63n - 1n,
      -(2n ** 63n),
    ]);
  const size = () => pick([0, 1, 1, 2, 2, 3, 3, 4, 5, 8]);
  const shape = () => Array.from({ length: pick([0, 1, 1, 2, 2, 3, 4, 4, 5]) }, size);
  const tensor = () => {
    const dtype = pick(dtypes);
    const made = pick([
      () => zeros(shape(), { dtype }),
      () => ones(shape(), { dtype }),
      () => empty(shape(), { dtype }),
      () => randn(shape()),
      () => randn(shape()).mul(1e9).to(dtype),
      () => randn([2, 3, 4, 4]).to({ memoryFormat: 'channels_last' }),
      () => ops.call('aten::randint', 5, shape()),
      () => ops.call('aten::randint', 5, shape()).sub(2),
      () => randn(shape(), { requiresGrad: true }),
      () => randn([4, 6]).transpose(0, 1).slice(0, 1, 5, 2),
      () => zeros([1]).expand([3, 3]),
    ])();
    return made;
  };
  const number = () => pick([0, 1, -1, 0.5, -0, 2, 1e-30, 1e30, -1e308, NaN, Infinity, -Infinity, integer()]);
  const list = (make, length) => Array.from({ length: length ?? pick([0, 1, 2, 2, 3, 4, 7]) }, make);
  /** A value for a type of a schema, "Tensor(a!)?" or "SymInt[2]"; undefined where JavaScript can give none. */
  const value = (type) => {
    const plain = type.replace(/\([^)]*\)/g, '');
    if (plain.endsWith('?')) return next() < 0.4 ? null : value(plain.slice(0, -1));
    const array = /^(.*)\[(\d*)\]$/.exec(plain);
    if (array !== null) {
      const length = array[2] === '' || next() < 0.2 ? undefined : Number(array[2]);
      return list(() => value(array[1]), length);
    }
    switch (plain) {
      case 'Tensor':
        return tensor();
      case 'int':
      case 'SymInt':
        return integer();
      case 'float':
        return Number(number());
      case 'Scalar':
        return number();
      case 'bool':
        return next() < 0.5;
      case 'str':
        return pick([
          '',
          'mean',
          'none',
          'reflect',
          'constant',
          'sum',
          'floor',
          'ij,jk->ik',
          '\0',
          'x'.repeat(300),
        ]);
      case 'ScalarType':
        return pick(dtypes);
      case 'Device':
        return 'cpu';
      case 'MemoryFormat':
        return pick(['contiguous', 'channels_last', 'preserve']);
      default:
        return undefined;
    }
  };
  return { next, value };
}

/** The parameters of a schema: `{ type, name, keyword, optional }` each. */
function parameters(schema) {
  const start = schema.indexOf('(');
  let depth = 0;
  let text = '';
  const parts = [];
  for (const letter of schema.slice(start + 1, schema.lastIndexOf(' -> ') - 1)) {
    if (letter === ',' && depth === 0) {
      parts.push(text.trim());
      text = '';
      continue;
    }
    if ('([{'.includes(letter)) depth++;
    if (')]}'.includes(letter)) depth--;
    text += letter;
  }
  if (text.trim() !== '') parts.push(text.trim());
  let keyword = false;
  const found = [];
  for (const part of parts) {
    if (part === '*') {
      keyword = true;
      continue;
    }
    const [declaration, ...rest] = part.split('=');
    const space = declaration.lastIndexOf(' ');
    found.push({
      type: declaration.slice(0, space),
      name: declaration.slice(space + 1),
      keyword,
      optional: rest.length > 0,
    });
  }
  return found;
}

function callOnce(library, name, wanted, { next, value }) {
  const keywords = {};
  const positional = [];
  let skipped = false; // what follows a parameter without a value goes by name
  for (const { type, name: parameter, keyword, optional } of wanted) {
    if (optional && next() < 0.3) {
      skipped = true;
      continue;
    }
    const given = value(type);
    if (given === undefined) {
      skipped = true;
      continue;
    }
    if (keyword || skipped) keywords[parameter] = given;
    else positional.push(given);
  }
  library.tidy(() => {
    library.ops.call(name, ...positional, keywords);
    return undefined;
  });
}

function child() {
  const [first, log] = options.child.split(/,(.*)/s);
  const library = require('..');
  const output = openSync(log, 'a');
  const names = library.ops.list();
  let ran = 0;
  for (let index = Number(first); index < names.length; index++) {
    const name = names[index];
    writeSync(output, `${index} ${name}\n`);
    const schemas = library.ops.schema(name).split('\n');
    const schema = schemas.find((text) => text.startsWith(`${name}(`)) ?? schemas[0];
    const wanted = parameters(schema);
    for (let attempt = 0; attempt < Number(options.tries); attempt++) {
      const made = generators(random(Number(options.seed) * 1_000_003 + index * 1009 + attempt), library);
      try {
        callOnce(library, name, wanted, made);
        ran++;
      } catch (error) {
        if (!library.isSenetError(error)) throw error;
        if (error.code === 'ERR_SENET_REFUSED_OPERATOR') break;
      }
    }
  }
  writeSync(output, `end ${ran}\n`);
  closeSync(output);
  process.exit(0);
}

async function main() {
  if (options.help) {
    console.log('usage: node scripts/fuzz-operators.js [--tries 30] [--seed 1] [--minutes 60] [--json]');
    return;
  }
  const folder = mkdtempSync(path.join(os.tmpdir(), 'senet-fuzz-'));
  const stop = Date.now() + Number(options.minutes) * 60_000;
  const found = [];
  let index = 0;
  let finished = false;
  for (let run = 0; !finished && Date.now() < stop; run++) {
    const log = path.join(folder, `${run}.log`);
    writeSync(openSync(log, 'w'), '');
    const last = () => readFileSync(log, 'utf8').trim().split('\n').at(-1) ?? '';
    const command = `ulimit -v ${ADDRESS_SPACE_KB}; ulimit -c 0; exec "$0" "$@"`;
    const args = [__filename, '--tries', options.tries, '--seed', options.seed, '--child', `${index},${log}`];
    const running = spawn('sh', ['-c', command, process.execPath, ...args], { cwd: folder, stdio: 'ignore' });
    let seen = '';
    let since = Date.now();
    let hung = false;
    const watch = setInterval(() => {
      const line = last();
      if (line !== seen) [seen, since] = [line, Date.now()];
      hung = seen !== '' && Date.now() - since > HANG_MS;
      if (hung || Date.now() > stop) running.kill('SIGKILL');
    }, 500);
    const how = await new Promise((resolve) =>
      running.on('close', (code, signal) => resolve(signal ?? code)),
    );
    clearInterval(watch);
    const [where, name] = last().split(' ');
    finished = where === 'end';
    if (finished || (Date.now() > stop && !hung)) break;
    if (where === '') throw new Error(`the child did not start: ${how}`);
    found.push({ name, how: hung ? 'hang' : String(how) });
    if (!options.json) console.log(`${hung ? 'hang' : how}\t${name}`);
    index = Number(where) + 1;
  }
  rmSync(folder, { recursive: true });
  if (options.json) console.log(JSON.stringify({ finished, found }, null, 2));
  else
    console.log(`${finished ? 'all operators' : `operators up to number ${index}`}, ${found.length} found`);
}

if (options.child === undefined) void main();
else child();
