/** What comes over gRPC and is wrong: each ends with a status of the caller's and our code, none as a fault of the server. */
import { gzipSync } from 'node:zlib';

import * as grpc from '@grpc/grpc-js';
import { expect } from 'chai';

import { createInferenceHandler, memory, type ErrorCode, type InferenceHandler } from '../../lib';
import { startGrpcServer, type GrpcServer } from '../../lib/grpc';
import { collectGarbage } from '../support/collect';
import { bareCall, framed, grpcClient, PROTO, SERVICE, statusOf, type GrpcClient } from '../support/grpc';
import { BAG, element, loadBundled } from '../support/serving';

const { INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL } = grpc.status;
const MAX_MESSAGE = 400_000;

type Row = readonly [name: string, status: grpc.status, code: ErrorCode, input: object, request?: object];

const outputs = (classification: object): object => ({
  outputs: [{ name: 'scores', parameters: { classification } }],
});
const raw = (...raw_input_contents: readonly Uint8Array[]): object => ({ raw_input_contents });
const NO_CONTENTS = { contents: undefined };
const floats = (shape: readonly (number | string)[], values: readonly number[] = [1]): object => ({
  ...{ datatype: 'FP32', shape, contents: { fp32_contents: values } },
});

const ROWS: Row[] = [
  ['no input', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', {}, { inputs: [] }],
  ['two inputs', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', {}, { inputs: [{ name: 'a' }, { name: 'b' }] }],
  ['no contents', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', NO_CONTENTS],
  ['contents, raw and typed', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', {}, raw(element(BAG))],
  [
    'raw contents of two inputs',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    NO_CONTENTS,
    raw(element(BAG), element(BAG)),
  ],
  [
    'an element whose length lies',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    NO_CONTENTS,
    raw(Buffer.from([255, 255, 255, 255, 1])),
  ],
  [
    'an element without its length',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    NO_CONTENTS,
    raw(Buffer.from([1, 0])),
  ],
  [
    'an image that is none',
    INVALID_ARGUMENT,
    'ERR_SENET_IMAGE',
    { contents: { bytes_contents: [Buffer.from('no image')] } },
  ],
  [
    'an image of no bytes',
    RESOURCE_EXHAUSTED,
    'ERR_SENET_IMAGE_SIZE',
    { contents: { bytes_contents: [Buffer.alloc(0)] } },
  ],
  ['fewer images than the shape says', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', { shape: [2] }],
  [
    'too many images',
    RESOURCE_EXHAUSTED,
    'ERR_SENET_REQUEST_SIZE',
    { shape: [9], contents: { bytes_contents: Array(9).fill(BAG) } },
  ],

  ['no shape', INVALID_ARGUMENT, 'ERR_SENET_SHAPE', { shape: [] }],
  ['a negative shape', INVALID_ARGUMENT, 'ERR_SENET_SHAPE', { shape: [-1] }],
  ['a shape of 2 ** 62', INVALID_ARGUMENT, 'ERR_SENET_SHAPE', floats(['4611686018427387904', 1, 1, 1])],
  ['a shape whose product overflows', INVALID_ARGUMENT, 'ERR_SENET_SHAPE', floats([1, 3, 2 ** 32, 2 ** 32])],
  [
    'a shape that is larger than what comes',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    floats([1, 3, 50_000, 50_000]),
  ],
  ['a shape of 1,000 dimensions', INVALID_ARGUMENT, 'ERR_SENET_SHAPE', { shape: Array(1000).fill(1) }],
  [
    'NaN in the tensor',
    INVALID_ARGUMENT,
    'ERR_SENET_NAN_OUTPUT',
    floats([1, 3, 32, 32], Array<number>(3072).fill(NaN)),
  ],
  [
    'a pixel of 300',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    { datatype: 'UINT8', shape: [1, 1, 1, 1], contents: { uint_contents: [300] } },
  ],
  [
    'floats as integers',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    { datatype: 'FP32', shape: [1, 3, 1, 1], contents: { int_contents: [1, 2, 3] } },
  ],

  ...['BOOL', 'UINT16', 'UINT32', 'UINT64', 'INT8', 'INT16', 'INT32', 'INT64', 'FP16', 'BF16', 'FP64'].map(
    (datatype): Row => [datatype, INVALID_ARGUMENT, 'ERR_SENET_DTYPE', { datatype }],
  ),
  ...['', 'FLOAT', 'fp32', '__proto__', 'X'.repeat(100_000)].map((datatype): Row => [
    `the datatype '${datatype.slice(0, 10)}'`,
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    { datatype },
  ]),

  ['an unknown output', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', {}, { outputs: [{ name: 'x' }] }],
  [
    '10,000 outputs',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    {},
    { outputs: Array(10_000).fill({ name: 'scores' }) },
  ],
  ['a classification of -1', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', {}, outputs({ int64_param: -1 })],
  ['a classification of NaN', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', {}, outputs({ double_param: NaN })],
  [
    'a classification that is a text',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    {},
    outputs({ string_param: '3' }),
  ],
  [
    'shared memory',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    { parameters: { shared_memory_region: { string_param: 'x' } } },
  ],
  ['an id of 5,000 characters', INVALID_ARGUMENT, 'ERR_SENET_REQUEST', {}, { id: 'x'.repeat(5000) }],

  ['an unknown version', NOT_FOUND, 'ERR_SENET_UNKNOWN_SERVED_MODEL', {}, { model_version: '9' }],
  ['no model', NOT_FOUND, 'ERR_SENET_UNKNOWN_SERVED_MODEL', {}, { model_name: '' }],
  ...['other', 'constructor', '../net', '\0', 'net/versions/1', 'net@1', 'n'.repeat(5000)].map(
    (model_name): Row => [
      ...([`the model ${JSON.stringify(model_name.slice(0, 20))}`, NOT_FOUND] as const),
      ...(['ERR_SENET_UNKNOWN_SERVED_MODEL', {}, { model_name }] as const),
    ],
  ),
  [
    'a model whose name is longer than an address',
    INVALID_ARGUMENT,
    'ERR_SENET_REQUEST',
    {},
    { model_name: 'n'.repeat(50_000) },
  ],
  [
    'a body that is just too large with its head',
    RESOURCE_EXHAUSTED,
    'ERR_SENET_REQUEST_SIZE',
    { contents: { bytes_contents: [Buffer.alloc(MAX_MESSAGE - 100)] } },
  ],
];

describe('bad requests over gRPC', () => {
  let handler: InferenceHandler;
  let server: GrpcServer;
  let client: GrpcClient;
  let tensors: number;

  before(async () => {
    handler = createInferenceHandler({ net: await loadBundled() }, { maxBody: MAX_MESSAGE, maxImages: 8 });
    server = await startGrpcServer(handler, { port: 0, maxMessage: MAX_MESSAGE });
    client = grpcClient(PROTO, SERVICE, server.port);
    await collectGarbage();
    tensors = memory().tensors;
  });
  after(async () => {
    client.close();
    await server.close();
    await handler.close();
  });

  const request = (input: object, more: object = {}): object => ({
    model_name: 'net',
    inputs: [{ name: 'input', datatype: 'BYTES', shape: [1], contents: { bytes_contents: [BAG] }, ...input }],
    ...more,
  });

  for (const [name, status, code, input, more] of ROWS) {
    it(`${name}: ${grpc.status[status]} ${code}`, async () => {
      const [given, details] = await statusOf(client.call('ModelInfer', request(input, more)));
      expect(grpc.status[given], details).to.equal(grpc.status[status]);
      expect(details).to.contain(`[${code}]`);
    });
  }

  it('the other methods refuse models that are not there', async () => {
    for (const method of ['ModelReady', 'ModelMetadata'])
      for (const name of ['', 'constructor', 'net/ready'])
        expect((await statusOf(client.call(method, { name })))[0], `${method} ${name}`).to.equal(NOT_FOUND);
  });

  it('bytes that are no message are the fault of who sends them', async () => {
    for (const bytes of [Buffer.alloc(100, 0xff), Buffer.from([0x2a, 4, 0x22, 2, 0x0a, 0xff])]) {
      const { status, message } = await bareCall(server.port, 'ModelInfer', framed(bytes));
      expect(status, message).to.equal(INVALID_ARGUMENT);
      expect(message).to.contain('[ERR_SENET_REQUEST]');
    }
  });

  it("what is no gRPC, gRPC's library refuses before it is a call, and bounds what it becomes", async () => {
    const bomb = framed(gzipSync(Buffer.alloc(50e6)), 1);
    const gzip = { 'grpc-encoding': 'gzip' };
    const rows: [number, string, Uint8Array | null, Record<string, string>?][] = [
      [RESOURCE_EXHAUSTED, 'ModelInfer', framed(Buffer.alloc(MAX_MESSAGE + 1))],
      [RESOURCE_EXHAUSTED, 'ModelInfer', framed(Buffer.alloc(3), 0, 2 ** 31)],
      [RESOURCE_EXHAUSTED, 'ModelInfer', bomb, gzip],
      [INTERNAL, 'ModelInfer', framed(Buffer.alloc(30), 1), gzip], // as gRPC wants it of what cannot be inflated
      [UNIMPLEMENTED, 'ModelInfer', framed(Buffer.alloc(30), 1), { 'grpc-encoding': 'br' }],
      [UNIMPLEMENTED, 'ModelInfer', framed(Buffer.from([0x0a, 1, 65]), 0, 1000)],
      [UNIMPLEMENTED, 'ModelInfer', null],
      [UNIMPLEMENTED, 'ModelInfer', Buffer.from([0, 0])],
      [UNIMPLEMENTED, 'Nothing', framed(Buffer.alloc(0))],
    ];
    for (const [status, method, body, headers] of rows) {
      const said = await bareCall(server.port, method, body, headers);
      expect(said.status, said.message).to.equal(status);
    }
    const html = await bareCall(server.port, 'ServerLive', framed(Buffer.alloc(0)), {
      'content-type': 'text/html',
    });
    expect(html.http).to.equal(415);
    const many = Object.fromEntries(Array.from({ length: 3_000 }, (_, index) => [`h${index}`, 'y']));
    const bombed = await bareCall(server.port, 'ServerLive', framed(Buffer.alloc(0)), many);
    expect(bombed.error).to.match(/ENHANCE_YOUR_CALM/);
  });

  it('nothing of them stays, and the next one is answered', async () => {
    const [status, details] = await statusOf(client.call('ModelInfer', request({})));
    expect(status, details).to.equal(grpc.status.OK);
    expect(memory().tensors).to.equal(tensors);
    const held = handler.metrics().find(({ name }) => name === 'senet_body_bytes');
    expect(held?.samples.map(({ value }) => value)).to.deep.equal([0]);
  });
});
