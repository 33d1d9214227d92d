/** The Open Inference Protocol over gRPC, as a client made from the proto file sees it. */
import path from 'node:path';

import * as grpc from '@grpc/grpc-js';
import * as loader from '@grpc/proto-loader';
import { expect } from 'chai';
import { protoPath } from 'grpc-health-check';

import { createInferenceHandler, type InferenceHandler, type Prediction } from '../../lib';
import { startGrpcServer, type GrpcServer } from '../../lib/grpc';
import { expectRejection } from '../support/errors';
import { ASSETS, BAG, element, loadBundled, SANDAL } from '../support/serving';

type Call = (request: object, metadata?: grpc.Metadata) => Promise<Record<string, unknown>>;

describe('gRPC', () => {
  let handler: InferenceHandler;
  let server: GrpcServer;
  let expected: Prediction[];
  let client: Record<string, Call>;
  let stop: () => void;

  function clientOf(
    proto: string,
    of: (root: grpc.GrpcObject) => unknown,
    port: number,
  ): [Record<string, Call>, () => void] {
    const definition = loader.loadSync(proto, { keepCase: true, longs: Number, defaults: true });
    const Service = of(grpc.loadPackageDefinition(definition)) as grpc.ServiceClientConstructor;
    const one = new Service(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
    const methods = Object.keys(Service.service).map((name): [string, Call] => [
      name,
      (request, metadata = new grpc.Metadata()) =>
        new Promise((resolve, reject) => {
          const method = (one as unknown as Record<string, (...args: unknown[]) => void>)[name];
          method?.call(one, request, metadata, (error: Error | null, answer: Record<string, unknown>) =>
            error === null ? resolve(answer) : reject(error),
          );
        }),
    ]);
    return [Object.fromEntries(methods), () => one.close()];
  }

  before(async () => {
    const classifier = await loadBundled();
    expected = await classifier.predict([BAG, SANDAL]);
    handler = createInferenceHandler({ net: classifier });
    server = await startGrpcServer(handler, {
      port: 0,
      authorize: ({ 'x-api-key': key }) => key !== 'wrong',
    });
    const proto = path.join(ASSETS, 'serve', 'inference.proto');
    const service = (root: grpc.GrpcObject): unknown =>
      (root.inference as grpc.GrpcObject).GRPCInferenceService;
    [client, stop] = clientOf(proto, service, server.port);
  });
  after(async () => {
    stop();
    await server.close();
    await handler.close();
  });

  const call = (name: string, request: object, metadata?: grpc.Metadata): Promise<Record<string, unknown>> =>
    (client[name] as Call)(request, metadata);
  const codeOf = async (request: object, metadata?: grpc.Metadata): Promise<number> =>
    call('ModelInfer', request, metadata).then(
      () => grpc.status.OK,
      (error: unknown) => (error as grpc.ServiceError).code,
    );
  const input = (more: object): object => ({
    model_name: 'net',
    inputs: [{ name: 'input', datatype: 'BYTES', shape: [1], ...more }],
  });

  it('says what the server and its models are', async () => {
    expect(await call('ServerLive', {})).to.deep.equal({ live: true });
    expect(await call('ServerReady', {})).to.deep.equal({ ready: true });
    expect(await call('ModelReady', { name: 'net' })).to.deep.equal({ ready: true });
    expect((await call('ServerMetadata', {})).name).to.equal('senet-torch');
    const metadata = await call('ModelMetadata', { name: 'net', version: '1' });
    expect(metadata).to.deep.include({ name: 'net', versions: ['1'] });
    expect(metadata.inputs).to.deep.equal([{ name: 'input', datatype: 'FP32', shape: [-1, 3, 32, 32] }]);
  });

  it('raw contents and typed ones, all outputs, and the best classes', async () => {
    const raw = Buffer.concat([element(BAG), element(SANDAL)]);
    const request = {
      model_name: 'net',
      id: 'seven',
      inputs: [{ name: 'input', datatype: 'BYTES', shape: [2] }],
      raw_input_contents: [raw],
    };
    const answer = await call('ModelInfer', request);
    expect(answer).to.deep.include({ model_name: 'net', model_version: '1', id: 'seven' });
    const [scores] = answer.raw_output_contents as [Buffer];
    const values = new Float32Array(new Uint8Array(scores).buffer);
    expect(values[8]).to.be.closeTo(expected[0]?.scores[8] as number, 1e-5);
    expect(values[15]).to.be.closeTo(expected[1]?.scores[5] as number, 1e-5);
    const best = await call('ModelInfer', {
      ...input({ contents: { bytes_contents: [BAG] } }),
      outputs: [{ name: 'scores', parameters: { classification: { int64_param: 1 } } }],
    });
    expect((best.raw_output_contents as [Buffer])[0].subarray(4).toString()).to.match(/:8:Bag$/);
    const floats = await call(
      'ModelInfer',
      input({
        datatype: 'FP32',
        shape: [1, 3, 32, 32],
        contents: { fp32_contents: Array.from({ length: 3072 }, () => 0) },
      }),
    );
    expect((floats.outputs as object[])[0]).to.deep.include({
      name: 'scores',
      datatype: 'FP32',
      shape: [1, 10],
    });
  });

  it('what is wrong is a status, with the code in its words', async () => {
    const { INVALID_ARGUMENT, NOT_FOUND, UNAUTHENTICATED } = grpc.status;
    expect(await codeOf({ model_name: 'other', inputs: [] })).to.equal(NOT_FOUND);
    expect(await codeOf({ model_name: '', inputs: [] })).to.equal(NOT_FOUND);
    expect(await codeOf({ model_name: 'net', inputs: [] })).to.equal(INVALID_ARGUMENT);
    expect(await codeOf(input({ datatype: 'FP64' }))).to.equal(INVALID_ARGUMENT);
    expect(await codeOf(input({}))).to.equal(INVALID_ARGUMENT);
    expect(
      await codeOf({ ...input({ contents: { bytes_contents: [BAG] } }), raw_input_contents: [element(BAG)] }),
    ).to.equal(INVALID_ARGUMENT);
    expect(
      await codeOf(input({ datatype: 'UINT8', shape: [1, 1, 1, 1], contents: { uint_contents: [300] } })),
    ).to.equal(INVALID_ARGUMENT);
    const metadata = new grpc.Metadata();
    metadata.set('x-api-key', 'wrong');
    expect(await codeOf(input({ contents: { bytes_contents: [BAG] } }), metadata)).to.equal(UNAUTHENTICATED);
    const error: unknown = await call(
      'ModelInfer',
      input({ contents: { bytes_contents: [Buffer.from('no image')] } }),
    ).catch((one: unknown) => one);
    expect((error as grpc.ServiceError).details).to.contain('[ERR_SENET_IMAGE]');
  });

  it('has the health service, and refuses an address that is taken', async () => {
    const [health, end] = clientOf(
      protoPath,
      (root) => ((root.grpc as grpc.GrpcObject).health as { v1: grpc.GrpcObject }).v1.Health,
      server.port,
    );
    expect(await (health.Check as Call)({ service: 'inference.GRPCInferenceService' })).to.include({
      status: 1,
    });
    end();
    await expectRejection(startGrpcServer(handler, { port: server.port }), 'ERR_SENET_ARG_RANGE');
  });
});
