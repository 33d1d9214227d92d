/** Whatever a request brings, its answer is a coded 4xx, and none a 500: one row each. */
import { deflateSync, gzipSync } from 'node:zlib';

import { expect } from 'chai';

import { createInferenceHandler, memory, type ErrorCode, type InferenceHandler } from '../../lib';
import { collectGarbage } from '../support/collect';
import { ask, BAG, binary, element, form, loadBundled, type Sent } from '../support/serving';

const INFER = '/v2/models/net/infer';
const MAX_BODY = 200_000;

type Row = [name: string, code: ErrorCode, status: number, method: string, url: string, sent?: Sent];

const base64 = BAG.toString('base64');
const bytes = { name: 'input', shape: [1], datatype: 'BYTES' };
const infer = (input: object, more: object = {}): Sent => ({
  body: { inputs: [{ ...bytes, ...input }], ...more },
});
const raw = (input: object, content: Uint8Array): Sent =>
  binary({ inputs: [{ ...bytes, parameters: { binary_data_size: content.length }, ...input }] }, content);
const png = (body: Uint8Array | string): Sent => ({
  headers: { 'content-type': 'image/png' },
  body: Buffer.from(body),
});
const json = (text: string): Sent => ({ headers: { 'content-type': 'application/json' }, body: text });
const whole = form([BAG]);

/** A PNG of so many pixels whose data are a few bytes of zeros, deflated. */
function bomb(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(data.length);
    return Buffer.concat([length, Buffer.from(type), data, Buffer.alloc(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(100_000))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

const ROWS: Row[] = [
  ['no such path', 'ERR_SENET_NO_ROUTE', 404, 'GET', '/nothing'],
  ['another method', 'ERR_SENET_METHOD', 405, 'GET', '/classify'],
  ['a method that nobody has', 'ERR_SENET_METHOD', 405, 'BREW', '/v2'],
  ['an address that is badly encoded', 'ERR_SENET_REQUEST', 400, 'GET', '/v2/models/%E0%A4%A'],
  ['an address without end', 'ERR_SENET_REQUEST', 400, 'GET', `/v2?${'a'.repeat(9000)}`],

  ['no body', 'ERR_SENET_IMAGE_SIZE', 413, 'POST', '/classify'],
  ['a text as image', 'ERR_SENET_IMAGE', 400, 'POST', '/classify', png('no image')],
  ['half an image', 'ERR_SENET_IMAGE', 400, 'POST', '/classify', png(BAG.subarray(0, 200))],
  ['a PNG of 30,000 x 30,000', 'ERR_SENET_IMAGE_SIZE', 413, 'POST', '/classify', png(bomb(30_000, 30_000))],
  [
    'a PNG of 2 ** 31 - 1 a side',
    'ERR_SENET_IMAGE',
    400,
    'POST',
    '/classify',
    png(bomb(2 ** 31 - 1, 2 ** 31 - 1)),
  ],
  ['an SVG', 'ERR_SENET_IMAGE', 400, 'POST', '/classify', png('<svg xmlns="http://www.w3.org/2000/svg"/>')],
  [
    'a content type of another kind',
    'ERR_SENET_MEDIA_TYPE',
    415,
    'POST',
    '/classify',
    { headers: { 'content-type': 'text/html' }, body: 'x' },
  ],
  ['topK 0', 'ERR_SENET_ARG_RANGE', 400, 'POST', '/classify?topK=0', png(BAG)],
  ['topK that is no number', 'ERR_SENET_ARG_TYPE', 400, 'POST', '/classify?topK=many', png(BAG)],
  ['topK 2 ** 53', 'ERR_SENET_ARG_RANGE', 400, 'POST', `/classify?topK=${2 ** 53}`, png(BAG)],
  ['a parameter that does not exist', 'ERR_SENET_UNKNOWN_OPTION', 400, 'POST', '/classify?top_k=3', png(BAG)],
  ['a parameter of Object', 'ERR_SENET_UNKNOWN_OPTION', 400, 'POST', '/classify?__proto__=3', png(BAG)],
  ['an unknown model', 'ERR_SENET_UNKNOWN_SERVED_MODEL', 404, 'POST', '/classify?model=other', png(BAG)],
  [
    'an unknown model of Object',
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    404,
    'POST',
    '/classify?model=constructor',
    png(BAG),
  ],
  ['an unknown version', 'ERR_SENET_UNKNOWN_SERVED_MODEL', 404, 'POST', '/classify?version=9', png(BAG)],

  [
    'a form without a boundary',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { headers: { 'content-type': 'multipart/form-data' }, body: whole.body },
  ],
  [
    'a form of another boundary',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { headers: { 'content-type': 'multipart/form-data; boundary=YY' }, body: whole.body },
  ],
  [
    'a form that ends in a file',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { ...whole, body: whole.body.subarray(0, 300) },
  ],
  [
    'a form that ends in a header',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { ...whole, body: whole.body.subarray(0, 30) },
  ],
  ['a form without an image', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', form([], { topK: '3' })],
  [
    'a form that is empty',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { ...whole, body: Buffer.from('--XX--\r\n') },
  ],
  [
    'a form of too many files',
    'ERR_SENET_REQUEST_SIZE',
    413,
    'POST',
    '/classify',
    form(Array.from({ length: 9 }, () => BAG)),
  ],
  [
    'a form of too many fields',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    form([BAG], Object.fromEntries(Array.from({ length: 80 }, (_, i) => [`f${i}`, 'x']))),
  ],
  [
    'a form with a field that is too large',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    form([BAG], { topK: 'x'.repeat(100_000) }),
  ],
  [
    'a form with a header that is too large',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { ...whole, body: Buffer.from(`--XX\r\nx: ${'y'.repeat(100_000)}\r\n\r\nz\r\n--XX--\r\n`) },
  ],
  ['a form with a text as image', 'ERR_SENET_IMAGE', 400, 'POST', '/classify', form([Buffer.from('text')])],

  ['no JSON', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', json('{')],
  ['JSON that is a list', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', json('[]')],
  ['JSON that is null', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', json('null')],
  ['JSON of 100,000 levels', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', json('['.repeat(100_000))],
  [
    'JSON of 100,000 objects in one another',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    json('{"a":'.repeat(20_000)),
  ],
  ['JSON without an image', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', { body: { topK: 3 } }],
  [
    'JSON with two kinds of images',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { body: { image: base64, images: [base64] } },
  ],
  ['an image that is no base64', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', { body: { image: 'ä!?' } }],
  ['an image that is a number', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', { body: { image: 7 } }],
  [
    'an image that is a file here',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { body: { image: 'file:///etc/passwd' } },
  ],
  ['images that are none', 'ERR_SENET_REQUEST', 400, 'POST', '/classify', { body: { images: [] } }],
  [
    'images that are an object',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { body: { images: { length: 3 } } },
  ],
  [
    'too many images',
    'ERR_SENET_REQUEST_SIZE',
    413,
    'POST',
    '/classify',
    { body: { images: Array.from({ length: 9 }, () => base64) } },
  ],
  [
    'an address, where none are allowed',
    'ERR_SENET_FORBIDDEN',
    403,
    'POST',
    '/classify',
    { body: { url: 'http://127.0.0.1/' } },
  ],
  [
    'an address as image',
    'ERR_SENET_FORBIDDEN',
    403,
    'POST',
    '/classify',
    { body: { image: 'http://127.0.0.1/' } },
  ],

  [
    'a body that says that it is too large',
    'ERR_SENET_REQUEST_SIZE',
    413,
    'POST',
    '/classify',
    { ...png(BAG), headers: { 'content-length': '999999999' } },
  ],
  [
    'a length that is none',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    '/classify',
    { ...png(BAG), headers: { 'content-length': '-1' } },
  ],
  [
    'a body that is too large',
    'ERR_SENET_REQUEST_SIZE',
    413,
    'POST',
    '/classify',
    png(Buffer.alloc(MAX_BODY + 1)),
  ],
  [
    'a body that becomes too large',
    'ERR_SENET_REQUEST_SIZE',
    413,
    'POST',
    INFER,
    { headers: { 'content-encoding': 'gzip' }, body: gzipSync(Buffer.alloc(50e6)) },
  ],
  [
    'a body that is not so encoded',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    { headers: { 'content-encoding': 'gzip' }, body: Buffer.from('{}') },
  ],
  [
    'a compressed body that ends early',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    { headers: { 'content-encoding': 'gzip' }, body: gzipSync(BAG).subarray(0, 100) },
  ],
  [
    'an unknown encoding',
    'ERR_SENET_MEDIA_TYPE',
    415,
    'POST',
    INFER,
    { headers: { 'content-encoding': 'br' }, body: Buffer.from('{}') },
  ],
  [
    'several encodings',
    'ERR_SENET_MEDIA_TYPE',
    415,
    'POST',
    INFER,
    { headers: { 'content-encoding': 'gzip, gzip' }, body: Buffer.from('{}') },
  ],
  [
    'an encoding of Object',
    'ERR_SENET_MEDIA_TYPE',
    415,
    'POST',
    INFER,
    { headers: { 'content-encoding': 'constructor' }, body: Buffer.from('{}') },
  ],

  [
    'infer: an unknown model',
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    404,
    'POST',
    '/v2/models/other/infer',
    infer({ data: [base64] }),
  ],
  [
    'infer: an unknown version',
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    404,
    'POST',
    '/v2/models/net/versions/7/infer',
    infer({ data: [base64] }),
  ],
  ['metadata of an unknown model', 'ERR_SENET_UNKNOWN_SERVED_MODEL', 404, 'GET', '/v2/models/other'],
  [
    'readiness of an unknown version',
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    404,
    'GET',
    '/v2/models/net/versions/7/ready',
  ],
  ['a model that may not be loaded', 'ERR_SENET_FORBIDDEN', 403, 'POST', '/v2/repository/models/net/load'],
  [
    'a path as a model to be loaded',
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    404,
    'POST',
    '/v2/repository/models/%2Fetc%2Fpasswd/load',
  ],
  ['infer: no inputs', 'ERR_SENET_REQUEST', 400, 'POST', INFER, { body: {} }],
  ['infer: two inputs', 'ERR_SENET_REQUEST', 400, 'POST', INFER, { body: { inputs: [bytes, bytes] } }],
  ['infer: an input that is null', 'ERR_SENET_REQUEST', 400, 'POST', INFER, { body: { inputs: [null] } }],
  ['infer: no name', 'ERR_SENET_REQUEST', 400, 'POST', INFER, infer({ name: 7, data: [base64] })],
  [
    'infer: an id that is a number',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ data: [base64] }, { id: 7 }),
  ],
  [
    'infer: no datatype',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: undefined, data: [base64] }),
  ],
  [
    'infer: no datatype of the protocol',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FLOAT', data: [1] }),
  ],
  [
    'infer: a datatype of Object',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: 'toString', data: [1] }),
  ],
  ...['INT64', 'FP64', 'BOOL', 'FP16', 'BF16'].map((datatype): Row => [
    `infer: ${datatype}`,
    'ERR_SENET_DTYPE',
    400,
    'POST',
    INFER,
    infer({ datatype, shape: [1, 3, 32, 32], data: [1] }),
  ]),
  ['infer: no shape', 'ERR_SENET_ARG_TYPE', 400, 'POST', INFER, infer({ shape: undefined, data: [base64] })],
  [
    'infer: a shape of texts',
    'ERR_SENET_ARG_TYPE',
    400,
    'POST',
    INFER,
    infer({ shape: ['1'], data: [base64] }),
  ],
  ['infer: a negative shape', 'ERR_SENET_SHAPE', 400, 'POST', INFER, infer({ shape: [-1], data: [base64] })],
  ['infer: a shape of zero', 'ERR_SENET_SHAPE', 400, 'POST', INFER, infer({ shape: [0], data: [] })],
  ['infer: an empty shape', 'ERR_SENET_SHAPE', 400, 'POST', INFER, infer({ shape: [], data: [base64] })],
  [
    'infer: a shape that overflows',
    'ERR_SENET_SHAPE',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FP32', shape: [1, 3, 2 ** 40, 2 ** 40], data: [1] }),
  ],
  [
    'infer: a shape of 2 ** 53',
    'ERR_SENET_SHAPE',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FP32', shape: [2 ** 53, 1, 1, 1], data: [1] }),
  ],
  [
    'infer: a shape that is larger than what comes',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FP32', shape: [1, 3, 50_000, 50_000], data: [1] }),
  ],
  [
    'infer: the same, in binary',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({ datatype: 'FP32', shape: [1, 3, 50_000, 50_000] }, BAG),
  ],
  [
    'infer: too many images',
    'ERR_SENET_REQUEST_SIZE',
    413,
    'POST',
    INFER,
    infer({ shape: [9], data: Array.from({ length: 9 }, () => base64) }),
  ],
  [
    'infer: an image of another size',
    'ERR_SENET_SHAPE',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FP32', shape: [1, 2, 32, 32], data: Array.from({ length: 2048 }, () => 0) }),
  ],
  [
    'infer: pixels of 2 channels',
    'ERR_SENET_SHAPE',
    400,
    'POST',
    INFER,
    raw({ datatype: 'UINT8', shape: [1, 2, 8, 8] }, Buffer.alloc(128)),
  ],
  [
    'infer: pixels of 300',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: 'UINT8', shape: [1, 1, 1, 2], data: [3, 300] }),
  ],
  [
    'infer: numbers that are texts',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FP32', shape: [1, 1, 1, 2], data: ['1', '2'] }),
  ],
  [
    'infer: numbers that are null',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FP32', shape: [1, 1, 1, 2], data: [null, null] }),
  ],
  [
    'infer: NaN in the tensor',
    'ERR_SENET_NAN_OUTPUT',
    422,
    'POST',
    INFER,
    raw({ datatype: 'FP32', shape: [1, 3, 32, 32] }, Buffer.alloc(12_288, 0xff)),
  ],
  ['infer: data that are missing', 'ERR_SENET_REQUEST', 400, 'POST', INFER, infer({})],
  [
    'infer: data that are no list',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ datatype: 'FP32', shape: [1, 3, 1, 1], data: 'abc' }),
  ],
  [
    'infer: fewer images than the shape says',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ shape: [2], data: [base64] }),
  ],
  ['infer: an image that is no base64', 'ERR_SENET_REQUEST', 400, 'POST', INFER, infer({ data: ['!'] })],
  ['infer: an image that is no image', 'ERR_SENET_IMAGE', 400, 'POST', INFER, infer({ data: ['AAAA'] })],
  [
    'infer: a binary size that is too small',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({ parameters: { binary_data_size: 3 } }, element(BAG)),
  ],
  [
    'infer: a binary size that is too large',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({ parameters: { binary_data_size: 2 ** 40 } }, element(BAG)),
  ],
  [
    'infer: a binary size that is a text',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({ parameters: { binary_data_size: '3' } }, element(BAG)),
  ],
  [
    'infer: bytes that nobody has',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({ parameters: {}, data: [base64] }, element(BAG)),
  ],
  ['infer: data twice', 'ERR_SENET_REQUEST', 400, 'POST', INFER, raw({ data: [base64] }, element(BAG))],
  [
    'infer: an element whose length lies',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({}, Buffer.from([255, 255, 255, 255, 1, 2])),
  ],
  [
    'infer: an element without its length',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({}, Buffer.from([1, 0])),
  ],
  [
    'infer: an element too many',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    raw({}, Buffer.concat([element(BAG), element(BAG)])),
  ],
  [
    'infer: a JSON length beyond the body',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    { headers: { 'inference-header-content-length': '99999' }, body: Buffer.from('{}') },
  ],
  [
    'infer: a JSON length that is none',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    { headers: { 'inference-header-content-length': '1e3' }, body: Buffer.from('{}') },
  ],
  [
    'infer: a JSON length in the middle of it',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    { headers: { 'inference-header-content-length': '5' }, body: Buffer.from('{"inputs":[]}') },
  ],
  [
    'infer: parameters that are a list',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ parameters: [], data: [base64] }),
  ],
  [
    'infer: shared memory',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ parameters: { shared_memory_region: 'x' } }),
  ],
  [
    'infer: an unknown output',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ data: [base64] }, { outputs: [{ name: 'other' }] }),
  ],
  [
    'infer: outputs that are null',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ data: [base64] }, { outputs: null }),
  ],
  [
    'infer: 10,000 outputs',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ data: [base64] }, { outputs: Array.from({ length: 10_000 }, () => ({ name: 'scores' })) }),
  ],
  [
    'infer: a classification of -1',
    'ERR_SENET_REQUEST',
    400,
    'POST',
    INFER,
    infer({ data: [base64] }, { outputs: [{ name: 'scores', parameters: { classification: -1 } }] }),
  ],
];

describe('bad requests', () => {
  let handler: InferenceHandler;
  let before_: number;

  before(async () => {
    handler = createInferenceHandler({ net: await loadBundled() }, { maxBody: MAX_BODY, maxImages: 8 });
    await collectGarbage();
    before_ = memory().tensors;
  });
  after(() => handler.close());

  for (const [name, code, status, method, url, sent] of ROWS) {
    it(`${name}: ${status} ${code}`, async () => {
      const answer = await ask(handler, method, url, sent);
      expect([answer.status, answer.json.code], answer.json.error).to.deep.equal([status, code]);
      expect(answer.json.error).to.be.a('string').and.not.equal('');
    });
  }

  it('more values in JSON than are taken: 413', async () => {
    const large = createInferenceHandler({ net: await loadBundled() });
    const data = `[${'0,'.repeat(2 ** 20 + 2)}0]`;
    const sent = json(`{"inputs":[{"name":"input","datatype":"FP32","shape":[1,3,600,600],"data":${data}}]}`);
    const answer = await ask(large, 'POST', INFER, sent);
    await large.close();
    expect([answer.status, answer.json.code]).to.deep.equal([413, 'ERR_SENET_REQUEST_SIZE']);
  });

  it('none left anything behind, and the next one is answered', async () => {
    const answer = await ask(handler, 'POST', '/classify', png(BAG));
    expect(answer.json.labels[0]?.label).to.equal('Bag');
    expect(memory().tensors).to.equal(before_);
    const metrics = await ask(handler, 'GET', '/metrics');
    expect(metrics.bytes.toString()).to.match(/^senet_body_bytes 0$/m);
  });
});
