/**
 * What requests bring that wants to break their reader: forms, headers, pictures, shapes, sizes and JSON that lie or never
 * end. Each is answered with a code of the caller's, none with 500, and nothing of it stays.
 */
import { crc32, deflateSync } from 'node:zlib';

import { expect } from 'chai';

import {
  createInferenceHandler,
  httpStatusOf,
  memory,
  type ErrorCode,
  type InferenceHandler,
} from '../../lib';
import { makeError } from '../../lib/errors';
import { collectGarbage } from '../support/collect';
import { ask, BAG, binary, element, form, loadBundled, type Sent } from '../support/serving';

const MAX_BODY = 400_000;
const base64 = BAG.toString('base64');

/** What is sent, where to, and the code of the answer. */
type Row = readonly [name: string, code: ErrorCode, sent: Sent, url?: string];

const raw = (body: Uint8Array | string, type = 'image/png'): Sent => ({
  headers: { 'content-type': type },
  body: Buffer.from(body as Uint8Array),
});
const multipart = (body: string | Buffer, boundary = 'XX'): Sent =>
  raw(body, `multipart/form-data; boundary=${boundary}`);
const part = (headers: string, content = 'x'): string => `--XX\r\n${headers}\r\n\r\n${content}\r\n--XX--\r\n`;
const FILE = 'content-disposition: form-data; name="image"; filename="a.png"';

const whole = form([BAG, BAG]);
const FORMS: Row[] = [
  // Cut at every kind of place: in a boundary, between headers, before the last boundary, in it.
  ...[2, 10, 60, 120, whole.body.length - 700, whole.body.length - 9, whole.body.length - 5].map(
    (length): Row => [
      `a form of ${length < 200 ? `${length} bytes` : `${whole.body.length - length} bytes too few`}`,
      'ERR_SENET_REQUEST',
      { ...whole, body: whole.body.subarray(0, length) },
    ],
  ),
  ['a form that is nothing', 'ERR_SENET_REQUEST', multipart('')],
  ['an empty boundary', 'ERR_SENET_REQUEST', multipart(whole.body, '')],
  ['a boundary of spaces', 'ERR_SENET_REQUEST', multipart(whole.body, '"  "')],
  ['half the boundary', 'ERR_SENET_REQUEST', multipart(whole.body, 'X')],
  ['the boundary and more', 'ERR_SENET_REQUEST', multipart(whole.body, 'XXX')],
  ['a boundary of 100,000 characters', 'ERR_SENET_REQUEST', multipart(whole.body, 'X'.repeat(100_000))],
  ['a boundary with a line in it', 'ERR_SENET_REQUEST', multipart(whole.body, '"X\r\nX"')],
  [
    'a form within a form',
    'ERR_SENET_REQUEST',
    multipart(part('content-type: multipart/mixed; boundary=YY')),
  ],
  ['another kind of form', 'ERR_SENET_MEDIA_TYPE', raw(whole.body, 'multipart/mixed; boundary=XX')],
  ['a part without headers', 'ERR_SENET_REQUEST', multipart('--XX\r\n\r\nx\r\n--XX--\r\n')],
  ['a part without a name', 'ERR_SENET_REQUEST', multipart(part('content-disposition: form-data'))],
  ['a part of 10,000 headers', 'ERR_SENET_REQUEST', multipart(part('x: y\r\n'.repeat(10_000) + FILE))],
  ['a part of a header without end', 'ERR_SENET_REQUEST', multipart(`--XX\r\nx: ${'y'.repeat(300_000)}`)],
  [
    'a name of 100,000 characters',
    'ERR_SENET_REQUEST',
    multipart(part(`content-disposition: form-data; name="${'n'.repeat(100_000)}"`)),
  ],
  [
    'a file called as one of this machine',
    'ERR_SENET_IMAGE',
    multipart(part(FILE.replace('a.png', '../../etc/passwd'))),
  ],
  ['an empty file', 'ERR_SENET_IMAGE_SIZE', multipart(part(FILE, ''))],
  [
    '1,000 fields of one name',
    'ERR_SENET_REQUEST',
    multipart('--XX\r\ncontent-disposition: form-data; name="topK"\r\n\r\n1\r\n'.repeat(1000) + part(FILE)),
  ],
  ['a field of Object', 'ERR_SENET_UNKNOWN_OPTION', form([BAG], { __proto__x: '1', constructor: '1' })],
];

/** A PNG of these chunks, each with its checksum. */
function png(...chunks: readonly (readonly [type: string, data: Buffer])[]): Buffer {
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    ...[...chunks, ['IEND', Buffer.alloc(0)] as const].flatMap(([type, data]) => {
      const named = Buffer.concat([Buffer.from(type, 'latin1'), data]);
      const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
      length.writeUInt32BE(data.length);
      sum.writeUInt32BE(crc32(named));
      return [length, named, sum];
    }),
  ]);
}
function header(
  width: number,
  height: number,
  bits = 8,
  colour = 2,
  interlaced = 0,
): readonly [string, Buffer] {
  const data = Buffer.alloc(13);
  data.writeUInt32BE(width, 0);
  data.writeUInt32BE(height, 4);
  data.set([bits, colour, 0, 0, interlaced], 8);
  return ['IHDR', data];
}
const pixels = (bytes: number): readonly [string, Buffer] => ['IDAT', deflateSync(Buffer.alloc(bytes))];
/** A chunk that says a name, and becomes so many bytes. */
const inflates = (type: string, bytes: number): readonly [string, Buffer] => [
  type,
  Buffer.concat([Buffer.from('x\0\0'), deflateSync(Buffer.alloc(bytes))]),
];
const gif = Buffer.from('474946383961ffffffff800000000000ffffff2c00000000ffffffff0002024401003b', 'hex');
const bmp = (width: number, height: number): Buffer => {
  const bytes = Buffer.alloc(54);
  bytes.write('BM');
  bytes.writeUInt32LE(54, 2);
  bytes.writeUInt32LE(54, 10);
  bytes.writeUInt32LE(40, 14);
  bytes.writeInt32LE(width, 18);
  bytes.writeInt32LE(height, 22);
  bytes.set([1, 0, 24, 0], 26);
  return bytes;
};

const PICTURES: Row[] = [
  [
    'a PNG of 10,000 x 9,000 with all its pixels',
    'ERR_SENET_IMAGE_SIZE',
    raw(png(header(10_000, 9_000, 1, 0), pixels(9_000 * 1_251))),
  ],
  [
    'an interlaced one of 30,000 x 30,000',
    'ERR_SENET_IMAGE_SIZE',
    raw(png(header(30_000, 30_000, 8, 2, 1), pixels(99))),
  ],
  [
    'a PNG of 65,536 x 65,536, whose pixels overflow 32 bits',
    'ERR_SENET_IMAGE_SIZE',
    raw(png(header(2 ** 16, 2 ** 16), pixels(99))),
  ],
  ['a PNG of no width', 'ERR_SENET_IMAGE', raw(png(header(0, 9), pixels(99)))],
  ['a PNG that says more pixels than it has', 'ERR_SENET_IMAGE', raw(png(header(5_000, 5_000), pixels(99)))],
  ['a PNG without pixels', 'ERR_SENET_IMAGE', raw(png(header(9, 9)))],
  ['a PNG whose chunk is longer than the file', 'ERR_SENET_IMAGE', raw(BAG.subarray(0, 60))],
  ['a GIF of 65,535 x 65,535', 'ERR_SENET_IMAGE_SIZE', raw(gif)],
  ['a BMP of 2 ** 31 - 1 a side', 'ERR_SENET_IMAGE', raw(bmp(2 ** 31 - 1, 2 ** 31 - 1))],
  ['a BMP of - 2 ** 31', 'ERR_SENET_IMAGE', raw(bmp(-(2 ** 31), -(2 ** 31)))],
  ['a PPM of 10 ** 30 a side', 'ERR_SENET_IMAGE', raw(`P6 ${'9'.repeat(30)} ${'9'.repeat(30)} 255\n`)],
  ['a PPM without a size', 'ERR_SENET_IMAGE', raw('P6 NaN Infinity 255\n')],
];

const INFER = '/v2/models/net/infer';
const infer = (input: object, more: object = {}): Sent => ({
  body: { inputs: [{ name: 'input', shape: [1], datatype: 'BYTES', data: [base64], ...input }], ...more },
});
const json = (text: string | Buffer): Sent => raw(text, 'application/json');
const floats = (shape: string): Sent =>
  json(`{"inputs":[{"name":"input","datatype":"FP32","shape":${shape},"data":[1]}]}`);

const TENSORS: Row[] = [
  ...[
    ['[4294967296, 4294967296, 1, 1]', 'ERR_SENET_SHAPE'],
    ['[1, 3, 4294967296, 4294967296]', 'ERR_SENET_SHAPE'],
    ['[1, 3, 1e200, 1e200]', 'ERR_SENET_SHAPE'],
    ['[1, 3, 1e999, 1]', 'ERR_SENET_SHAPE'],
    ['[1, 3, 94906267, 94906267]', 'ERR_SENET_SHAPE'],
    ['[1, 3, 0.5, 2]', 'ERR_SENET_SHAPE'],
    ['[1, 3, -1, -1]', 'ERR_SENET_SHAPE'],
    ['[1, 3, null, 1]', 'ERR_SENET_ARG_TYPE'],
    ['[[1], 3, 1, 1]', 'ERR_SENET_ARG_TYPE'],
    ['{"length": 4}', 'ERR_SENET_ARG_TYPE'],
    ['7', 'ERR_SENET_ARG_TYPE'],
    [`[${'1,'.repeat(5_000)}1]`, 'ERR_SENET_SHAPE'],
    ['[1, 3, 65536, 65536]', 'ERR_SENET_REQUEST'],
    ['[1, 3, 1]', 'ERR_SENET_SHAPE'],
  ].map(([shape = '', code]): Row => [
    `the shape ${shape.slice(0, 40)}`,
    code as ErrorCode,
    floats(shape),
    INFER,
  ]),
  ...['UINT16', 'UINT32', 'UINT64', 'INT8', 'INT16', 'INT32'].map((datatype): Row => [
    datatype,
    'ERR_SENET_DTYPE',
    infer({ datatype, shape: [1, 3, 32, 32], data: [1] }),
    INFER,
  ]),
  ...[null, 32, ['FP32'], '', 'fp32', 'FP32 ', '__proto__', 'X'.repeat(100_000)].map((datatype): Row => [
    `the datatype ${JSON.stringify(datatype).slice(0, 20)}`,
    'ERR_SENET_REQUEST',
    infer({ datatype, shape: [1, 3, 1, 1], data: [1] }),
    INFER,
  ]),
  ...[-1, 0.5, 2 ** 53, 1e308, true, null, [3], {}, '1'].map((size): Row => [
    `the binary size ${JSON.stringify(size)}`,
    'ERR_SENET_REQUEST',
    binary(
      { inputs: [{ name: 'input', shape: [1], datatype: 'BYTES', parameters: { binary_data_size: size } }] },
      element(BAG),
    ),
    INFER,
  ]),
  ...['-1', '0x10', '1.5', ' 5', '', '9'.repeat(400), 'NaN', '1, 2'].map((length): Row => [
    `the length of JSON '${length.slice(0, 20)}'`,
    'ERR_SENET_REQUEST',
    { headers: { 'inference-header-content-length': length }, body: Buffer.from('{"inputs":[]}') },
    INFER,
  ]),
  [
    'the length of JSON 0, and JSON',
    'ERR_SENET_IMAGE',
    { headers: { 'inference-header-content-length': '0' }, body: Buffer.from('{}') },
    INFER,
  ],
  [
    'pixels fewer than the shape by one',
    'ERR_SENET_REQUEST',
    binary(
      {
        inputs: [
          { name: 'input', shape: [1, 1, 4, 4], datatype: 'UINT8', parameters: { binary_data_size: 15 } },
        ],
      },
      Buffer.alloc(15),
    ),
    INFER,
  ],
  [
    'elements nested deeper than the shape',
    'ERR_SENET_REQUEST',
    infer({ datatype: 'FP32', shape: [1, 3, 1, 1], data: [[[[[1, 2, 3]]]]] }),
    INFER,
  ],
  [
    'Infinity among the numbers',
    'ERR_SENET_NAN_OUTPUT',
    json(
      `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,3,32,32],"data":[${'1e999,'.repeat(3071)}1e999]}]}`,
    ),
    INFER,
  ],
];

const nested = (levels: number, open: string, close: string): string =>
  open.repeat(levels) + close.repeat(levels);
const JSON_TEXTS: Row[] = [
  ...[INFER, '/classify', '/explain', '/v2/repository/models/net/load', '/v2/repository/index'].map(
    (url): Row => [`150,000 levels to ${url}`, 'ERR_SENET_REQUEST', json(nested(150_000, '[', ']')), url],
  ),
  [
    '65 levels behind what is wanted',
    'ERR_SENET_REQUEST',
    json(`{"image":"${base64}","x":${nested(65, '{"a":[', ']}')}}`),
  ],
  [
    'levels in a text are none',
    'ERR_SENET_UNKNOWN_OPTION',
    json(`{"image":"${base64}","x":"${'['.repeat(1000)}"}`),
  ],
  ['a quote that ends nothing', 'ERR_SENET_REQUEST', json(`{"image":"${'\\"'.repeat(100_000)}`)],
  ['nothing', 'ERR_SENET_REQUEST', json('')],
  ['a number', 'ERR_SENET_REQUEST', json('1e999')],
  ['a text', 'ERR_SENET_REQUEST', json('"image"')],
  ['bytes that are no UTF-8', 'ERR_SENET_REQUEST', json(Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a]))],
  ['a name of Object', 'ERR_SENET_UNKNOWN_OPTION', json(`{"image":"${base64}","__proto__":{"topK":1}}`)],
  ['one name 20,000 times', 'ERR_SENET_REQUEST', json(`{${'"image":"!",'.repeat(20_000)}"image":"!"}`)],
  [
    '20,000 names',
    'ERR_SENET_UNKNOWN_OPTION',
    json(`{"image":"${base64}",${Array.from({ length: 20_000 }, (_, i) => `"n${i}":0`).join()}}`),
  ],
  ['a topK of 2 ** 53', 'ERR_SENET_ARG_RANGE', json(`{"image":"${base64}","topK":9007199254740992}`)],
  ['a topK of 1e999', 'ERR_SENET_ARG_RANGE', json(`{"image":"${base64}","topK":1e999}`)],
  ['images that are null', 'ERR_SENET_REQUEST', json('{"images":[null]}')],
  ['images in one another', 'ERR_SENET_REQUEST', json(`{"images":[[["${base64}"]]]}`)],
  ['an image and an address', 'ERR_SENET_REQUEST', json(`{"image":"${base64}","url":"http://127.0.0.1"}`)],
];

const NAMES: Row[] = [
  ...[
    '__proto__',
    'constructor',
    '%00',
    '..%2Fnet',
    'net%40',
    'net@9',
    'n'.repeat(5_000),
    '%F0%9F%98%80',
    '*',
  ].map((name): Row => [
    `the model ${name.slice(0, 20)}`,
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    infer({}),
    `/v2/models/${name}/infer`,
  ]),
  ...['0', '-1', '1.0', '01', '99999999999999999999', 'NaN', '%00', 'latest'].map((version): Row => [
    `the version ${version}`,
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    infer({}),
    `/v2/models/net/versions/${version}/infer`,
  ]),
  ['an empty name', 'ERR_SENET_UNKNOWN_SERVED_MODEL', raw(BAG), '/classify?model='],
  ['an empty version', 'ERR_SENET_UNKNOWN_SERVED_MODEL', raw(BAG), '/classify?version='],
  ['a model that is a list', 'ERR_SENET_ARG_TYPE', json(`{"image":"${base64}","model":["net"]}`)],
  ['a path up', 'ERR_SENET_NO_ROUTE', raw(BAG), '/v2/../classify'],
];

describe('hostile requests', () => {
  let handler: InferenceHandler;
  let tensors: number;

  before(async () => {
    handler = createInferenceHandler({ net: await loadBundled() }, { maxBody: MAX_BODY, maxImages: 8 });
    await collectGarbage();
    tensors = memory().tensors;
  });
  after(() => handler.close());

  for (const [group, rows] of Object.entries({ FORMS, PICTURES, TENSORS, JSON_TEXTS, NAMES })) {
    describe(group.toLowerCase().replace('_', ' '), () => {
      for (const [name, code, sent, url = '/classify'] of rows) {
        it(`${name}: ${code}`, async () => {
          const answer = await ask(handler, 'POST', url, sent);
          expect(answer.json.code, answer.json.error).to.equal(code);
          expect(answer.status).to.equal(httpStatusOf(makeError(code, '')));
          expect(answer.status).to.be.within(400, 499);
          expect(answer.json.error.length).to.be.within(1, 1_000);
        });
      }
    });
  }

  it('pictures whose bytes become many are answered, for what they show', async () => {
    const large = [
      png(header(9_400, 9_400, 1, 0), pixels(9_400 * 1_176)), // 88 million pixels of 10 kB
      png(header(32, 32), inflates('zTXt', 60e6), pixels(32 * 97)),
      png(header(32, 32), inflates('iCCP', 60e6), pixels(32 * 97)),
      png(header(32, 32), pixels(50e6)), // more than its size takes
    ];
    for (const body of large) {
      const answer = await ask(handler, 'POST', '/classify', raw(body));
      expect(answer.status, answer.json.error).to.equal(200);
    }
  });

  it('nothing of them stays, and the next one is answered', async () => {
    expect((await ask(handler, 'POST', '/classify', raw(BAG))).json.labels[0]?.label).to.equal('Bag');
    expect(memory().tensors).to.equal(tensors);
    expect((await ask(handler, 'GET', '/metrics')).bytes.toString()).to.match(/^senet_body_bytes 0$/m);
    expect(Object.prototype).to.not.have.property('topK');
  });
});
