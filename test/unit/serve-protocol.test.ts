/** The Open Inference Protocol, version 2, as a client of Triton or KServe speaks it. */
import { deflateSync, gzipSync } from 'node:zlib';

import { expect } from 'chai';
import sharp from 'sharp';

import {
  createInferenceHandler,
  tensor,
  type ImageClassifier,
  type InferenceHandler,
  type Prediction,
} from '../../lib';
import { preprocess } from '../../lib/vision/preprocessing';
import { ask, BAG, binary, element, loadBundled, SANDAL, type AnswerJson } from '../support/serving';

const INFER = '/v2/models/net/infer';

describe('the Open Inference Protocol', () => {
  let classifier: ImageClassifier;
  let handler: InferenceHandler;
  let expected: Prediction[];
  let pixels: Uint8Array;
  let prepared: Float32Array;

  before(async () => {
    classifier = await loadBundled();
    const second = await loadBundled();
    handler = createInferenceHandler(
      { net: classifier, 'net@2': second },
      { repository: { later: () => loadBundled() } },
    );
    expected = await classifier.predict([BAG, SANDAL]);
    pixels = new Uint8Array(
      await sharp(BAG).removeAlpha().toColourspace('srgb').raw({ depth: 'uchar' }).toBuffer(),
    );
    const picture = tensor(pixels, { shape: [1, 28, 28, 3] }).permute([0, 3, 1, 2]);
    prepared = (await preprocess(picture, classifier.preprocessing))
      .contiguous()
      .toTypedArray() as Float32Array;
  });
  after(() => handler.close());

  const close = (values: readonly (number | string)[], wanted: Float32Array): void => {
    expect(values).to.have.lengthOf(wanted.length);
    values.forEach((value, index) => expect(value).to.be.closeTo(wanted[index] as number, 1e-5));
  };
  const output = (json: AnswerJson, name: string) =>
    json.outputs.find((one) => one.name === name) ?? { data: [], shape: [] };
  const bytesInput = (...images: Uint8Array[]) => ({
    ...{ name: 'input', shape: [images.length], datatype: 'BYTES' },
    data: images.map((image) => Buffer.from(image).toString('base64')),
  });

  it('says what the server and its models are', async () => {
    const server = await ask(handler, 'GET', '/v2');
    expect(server.json.name).to.equal('senet-torch');
    expect(server.json.extensions).to.include.members(['binary_tensor_data', 'classification']);
    expect((await ask(handler, 'GET', '/v2/')).json).to.deep.equal(server.json);
    expect((await ask(handler, 'GET', '/v2/models')).json).to.deep.equal({ models: ['net', 'later'] });
    const model = await ask(handler, 'GET', '/v2/models/net');
    expect(model.json).to.deep.include({ name: 'net', versions: ['1', '2'] });
    expect(model.json.inputs).to.deep.equal([{ name: 'input', datatype: 'FP32', shape: [-1, 3, 32, 32] }]);
    expect(model.json.outputs).to.deep.equal([
      { name: 'scores', datatype: 'FP32', shape: [-1, 10] },
      { name: 'logits', datatype: 'FP32', shape: [-1, 10] },
    ]);
    expect((await ask(handler, 'GET', '/v2/models/net/versions/1')).status).to.equal(200);
  });

  it('tells its health to both kinds of clients: by the status, and in the body', async () => {
    const live = await ask(handler, 'GET', '/v2/health/live');
    expect([live.status, live.json]).to.deep.equal([200, { live: true }]);
    const ready = await ask(handler, 'GET', '/v2/health/ready');
    expect([ready.status, ready.json]).to.deep.equal([200, { ready: true }]);
    const model = await ask(handler, 'GET', '/v2/models/net/versions/2/ready');
    expect([model.status, model.json]).to.deep.equal([200, { name: 'net', ready: true }]);
    const later = await ask(handler, 'GET', '/v2/models/later/ready');
    expect([later.status, later.json]).to.deep.equal([503, { name: 'later', ready: false }]);
    const head = await ask(handler, 'HEAD', '/v2/health/live');
    expect(head.headers['content-length']).to.equal(String('{"live":true}'.length));
    expect([head.status, head.bytes.length]).to.deep.equal([200, 0]);
  });

  it('encoded images in JSON: all outputs, as predict has them', async () => {
    const { status, json } = await ask(handler, 'POST', INFER, {
      body: { id: 'seven', inputs: [bytesInput(BAG, SANDAL)] },
    });
    expect([status, json.model_name, json.id]).to.deep.equal([200, 'net', 'seven']);
    for (const name of ['scores', 'logits'] as const) {
      expect(output(json, name).shape).to.deep.equal([2, 10]);
      close(output(json, name).data.slice(0, 10), (expected[0] as Prediction)[name]);
      close(output(json, name).data.slice(10), (expected[1] as Prediction)[name]);
    }
  });

  it('encoded images as binary tensors, answered so', async () => {
    const raw = Buffer.concat([element(BAG), element(SANDAL)]);
    const request = binary(
      {
        parameters: { binary_data_output: true },
        inputs: [
          { name: 'input', shape: [2, 1], datatype: 'BYTES', parameters: { binary_data_size: raw.length } },
        ],
        outputs: [{ name: 'logits' }],
      },
      raw,
    );
    const { status, headers, bytes } = await ask(handler, 'POST', INFER, request);
    expect(status).to.equal(200);
    const length = Number(headers['inference-header-content-length']);
    const json = JSON.parse(bytes.subarray(0, length).toString()) as AnswerJson;
    expect(json.outputs).to.deep.equal([
      { name: 'logits', datatype: 'FP32', shape: [2, 10], parameters: { binary_data_size: 80 } },
    ]);
    const values = new Float32Array(new Uint8Array(bytes.subarray(length)).buffer);
    close([...values.subarray(0, 10)], (expected[0] as Prediction).logits);
    close([...values.subarray(10)], (expected[1] as Prediction).logits);
  });

  it('a body that is one image', async () => {
    const { headers, bytes } = await ask(handler, 'POST', INFER, {
      headers: { 'inference-header-content-length': '0' },
      body: BAG,
    });
    const length = Number(headers['inference-header-content-length']);
    const values = new Float32Array(new Uint8Array(bytes.subarray(length, length + 40)).buffer);
    close([...values], (expected[0] as Prediction).scores);
  });

  it('pixels and preprocessed tensors, in JSON and in binary, channels first and last', async () => {
    const planes = Array.from({ length: 3 }, (_, channel) =>
      pixels.filter((_value, index) => index % 3 === channel),
    );
    const first = Uint8Array.from(planes.flatMap((plane) => [...plane]));
    const nested = planes.map((plane) =>
      Array.from({ length: 28 }, (_, row) => [...plane.subarray(28 * row, 28 * (row + 1))]),
    );
    const size = (length: number) => ({ parameters: { binary_data_size: length } });
    const floats = new Uint8Array(prepared.buffer, prepared.byteOffset, prepared.byteLength);
    const cases: [string, { headers?: Record<string, string>; body: object }][] = [
      [
        'UINT8',
        { body: { inputs: [{ name: 'input', datatype: 'UINT8', shape: [1, 3, 28, 28], data: [...first] }] } },
      ],
      [
        'UINT8 nested',
        { body: { inputs: [{ name: 'input', datatype: 'UINT8', shape: [1, 3, 28, 28], data: [nested] }] } },
      ],
      [
        'UINT8 binary',
        binary(
          { inputs: [{ name: 'input', datatype: 'UINT8', shape: [1, 3, 28, 28], ...size(2352) }] },
          first,
        ),
      ],
      [
        'UINT8 last',
        binary(
          { inputs: [{ name: 'input', datatype: 'UINT8', shape: [1, 28, 28, 3], ...size(2352) }] },
          pixels,
        ),
      ],
      [
        'FP32',
        {
          body: { inputs: [{ name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], data: [...prepared] }] },
        },
      ],
      [
        'FP32 binary',
        binary(
          { inputs: [{ name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], ...size(12288) }] },
          floats,
        ),
      ],
    ];
    for (const [name, request] of cases) {
      const { status, json } = await ask(handler, 'POST', INFER, request);
      expect(status, `${name}: ${JSON.stringify(json).slice(0, 200)}`).to.equal(200);
      close(output(json, 'scores').data, (expected[0] as Prediction).scores);
    }
  });

  it('the best classes as VALUE:INDEX:LABEL', async () => {
    const { json } = await ask(handler, 'POST', INFER, {
      body: {
        inputs: [bytesInput(BAG, SANDAL)],
        outputs: [{ name: 'scores', parameters: { classification: 2 } }],
      },
    });
    const [scores] = json.outputs;
    expect([scores.datatype, scores.shape]).to.deep.equal(['BYTES', [2, 2]]);
    expect(scores.data[0]).to.match(/^0\.\d{6}:8:Bag$/);
    expect(scores.data[2]).to.match(/^0\.\d{6}:5:Sandal$/);
    const many = await ask(handler, 'POST', INFER, {
      body: {
        inputs: [bytesInput(BAG)],
        outputs: [{ name: 'logits', parameters: { classification: 1000 } }],
      },
    });
    expect(many.json.outputs[0].shape).to.deep.equal([1, 10]);
  });

  it('compressed bodies', async () => {
    const body = Buffer.from(JSON.stringify({ inputs: [bytesInput(BAG)] }));
    for (const [encoding, compressed] of [
      ['gzip', gzipSync(body)],
      ['deflate', deflateSync(body)],
    ] as const) {
      const { status } = await ask(handler, 'POST', INFER, {
        headers: { 'content-encoding': encoding },
        body: compressed,
      });
      expect(status, encoding).to.equal(200);
    }
  });

  it('versions: the highest by default, or the one that is named', async () => {
    const body = { inputs: [bytesInput(BAG)] };
    expect((await ask(handler, 'POST', INFER, { body })).json.model_version).to.equal('2');
    const first = await ask(handler, 'POST', '/v2/models/net/versions/1/infer', { body });
    expect(first.json.model_version).to.equal('1');
  });

  it('requests share batches with each other', async () => {
    const batches: number[] = [];
    const own = await loadBundled();
    const small = createInferenceHandler({ net: own });
    const plain = own.predict.bind(own) as (images: unknown, options: object) => Promise<unknown>;
    Object.assign(own, {
      predict: (images: unknown, options: { onTimes?: (times: readonly { batch: number }[]) => void }) =>
        plain(images, {
          ...options,
          onTimes: (times: readonly { batch: number }[]) => {
            batches.push(...times.map(({ batch }) => batch));
            options.onTimes?.(times);
          },
        }),
    });
    const floats = new Uint8Array(prepared.buffer, prepared.byteOffset, prepared.byteLength);
    const request = binary(
      {
        inputs: [
          { name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], parameters: { binary_data_size: 12288 } },
        ],
      },
      floats,
    );
    await Promise.all(Array.from({ length: 8 }, () => ask(small, 'POST', INFER, request)));
    await small.close();
    expect(Math.max(...batches)).to.be.above(1);
  });

  it('loads and unloads what the operator listed, and lists it', async () => {
    const index = async (): Promise<unknown> => (await ask(handler, 'POST', '/v2/repository/index')).json;
    expect(await index()).to.deep.include({ name: 'later', version: '1', state: 'UNAVAILABLE', reason: '' });
    expect((await ask(handler, 'POST', '/v2/models/later/infer', { body: { inputs: [] } })).status).to.equal(
      503,
    );
    const loaded = await ask(handler, 'POST', '/v2/repository/models/later/load');
    expect([loaded.status, loaded.json]).to.deep.equal([200, { name: 'later', load: true }]);
    expect(await index()).to.deep.include({ name: 'later', version: '1', state: 'READY', reason: '' });
    const body = { inputs: [bytesInput(BAG)] };
    expect((await ask(handler, 'POST', '/v2/models/later/infer', { body })).status).to.equal(200);
    const unloaded = await ask(handler, 'POST', '/v2/repository/models/later/unload', {
      body: { parameters: { unload_dependents: true } },
    });
    expect(unloaded.status).to.equal(200);
    const gone = await ask(handler, 'POST', '/v2/models/later/infer', { body });
    expect([gone.status, gone.json.code]).to.deep.equal([503, 'ERR_SENET_NOT_READY']);
    expect(
      (await ask(handler, 'POST', '/v2/repository/index', { body: { ready: true } })).json,
    ).to.have.lengthOf(2);
    // Given as it is: nothing could bring it back.
    expect((await ask(handler, 'POST', '/v2/repository/models/net/unload')).status).to.equal(403);
    const configured = await ask(handler, 'POST', '/v2/repository/models/later/load', {
      body: { parameters: { config: '{}' } },
    });
    expect([configured.status, configured.json.code]).to.deep.equal([403, 'ERR_SENET_FORBIDDEN']);
  });
});
