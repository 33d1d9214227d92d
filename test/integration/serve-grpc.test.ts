/** The Open Inference Protocol over gRPC, as clients made from the proto file, or from what the server tells, see it. */
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { createRequire } from 'node:module';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import * as grpc from '@grpc/grpc-js';
import * as loader from '@grpc/proto-loader';
import { expect } from 'chai';
import { protoPath } from 'grpc-health-check';

import { createInferenceHandler, type InferenceHandler, type Prediction } from '../../lib';
import { startGrpcServer, type GrpcServer } from '../../lib/grpc';
import { makeCertificate } from '../support/certificate';
import { expectRejection } from '../support/errors';
import { grpcClient, PROTO, SERVICE, statusOf, type GrpcClient } from '../support/grpc';
import { BAG, element, loadBundled, SANDAL } from '../support/serving';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const REFLECTION = path.join(
  path.dirname(createRequire(__filename).resolve('@grpc/reflection/package.json')),
  'build/proto/grpc/reflection/v1/reflection.proto',
);

describe('gRPC', () => {
  const temporary = new Temporary();
  let handler: InferenceHandler;
  let server: GrpcServer;
  let expected: Prediction[];
  let client: GrpcClient;

  before(async () => {
    const classifier = await loadBundled();
    expected = await classifier.predict([BAG, SANDAL]);
    handler = createInferenceHandler({ net: classifier });
    server = await startGrpcServer(handler, {
      port: 0,
      authorize: ({ 'x-api-key': key }) => {
        if (key === 'broken') throw new Error('a fault of the operator');
        if (key === 'later') return Promise.resolve(true) as never;
        if (key === 'forgotten') return undefined as never;
        return key !== 'wrong';
      },
    });
    client = grpcClient(PROTO, SERVICE, server.port);
  });
  after(async () => {
    client.close();
    await server.close();
    await handler.close();
    temporary.cleanUp();
  });

  const call = (name: string, request: object, metadata?: grpc.Metadata): Promise<Record<string, unknown>> =>
    client.call(name, request, metadata);
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

  it('a call without the key is refused, and no call where the check of the key fails', async () => {
    for (const [key, code, words] of [
      ['wrong', grpc.status.UNAUTHENTICATED, /\[ERR_SENET_UNAUTHORIZED\]/],
      ['later', grpc.status.UNAUTHENTICATED, /\[ERR_SENET_UNAUTHORIZED\]/],
      ['forgotten', grpc.status.UNAUTHENTICATED, /\[ERR_SENET_UNAUTHORIZED\]/],
      ['broken', grpc.status.INTERNAL, /^the server failed$/],
    ] as const) {
      const metadata = new grpc.Metadata();
      metadata.set('x-api-key', key);
      const [status, details] = await statusOf(call('ServerMetadata', {}, metadata));
      expect(status, details).to.equal(code);
      expect(details).to.match(words);
    }
  });

  it('a call that is cancelled, or whose time is over, aborts its work', async () => {
    const slow = createInferenceHandler({
      net: await loadBundled({ batching: { delay: 60_000, maxBatch: 8 } }),
    });
    const served = await startGrpcServer(slow, { port: 0 });
    const caller = grpcClient(PROTO, SERVICE, served.port);
    const stub = caller.stub as unknown as Record<string, (...args: unknown[]) => grpc.ClientUnaryCall>;
    const valueOf = (family: string): number =>
      slow
        .metrics()
        .filter(({ name }) => name === family)
        .flatMap(({ samples }) => samples)
        .reduce((sum, { value }) => sum + value, 0);
    const until = async (holds: () => boolean): Promise<void> => {
      for (let look = 0; look < 500 && !holds(); look++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      expect(holds()).to.equal(true);
    };
    const request = input({ contents: { bytes_contents: [BAG] } });
    const cancelled = new Promise((resolve) => {
      const calling = stub.ModelInfer?.(request, ({ code }: grpc.ServiceError) => resolve(code));
      void until(() => valueOf('senet_queue_waiting') + valueOf('senet_queue_running') > 0).then(() =>
        calling?.cancel(),
      );
    });
    expect(await cancelled).to.equal(grpc.status.CANCELLED);
    await until(() => valueOf('senet_errors_total') === 1);
    const late = new Promise((resolve) =>
      stub.ModelInfer?.(request, { deadline: Date.now() + 1_000 }, ({ code }: grpc.ServiceError) =>
        resolve(code),
      ),
    );
    expect(await late).to.equal(grpc.status.DEADLINE_EXCEEDED);
    await until(() => valueOf('senet_errors_total') === 2);
    caller.close();
    await served.close();
    await slow.close();
  });

  it('has the health service, and refuses an address that is taken', async () => {
    const health = grpcClient(protoPath, 'grpc.health.v1.Health', server.port);
    expect(await health.call('Check', { service: SERVICE })).to.include({ status: 1 });
    health.close();
    await expectRejection(startGrpcServer(handler, { port: server.port }), 'ERR_SENET_ARG_RANGE');
  });

  it('ends though a client watches its health, or never sends its message, when it has answered', async () => {
    const own = createInferenceHandler({
      net: await loadBundled({ batching: { delay: 1_000, maxBatch: 8 } }),
    });
    const served = await startGrpcServer(own, { port: 0 });
    const health = grpcClient(protoPath, 'grpc.health.v1.Health', served.port);
    const caller = grpcClient(PROTO, SERVICE, served.port);
    const seen: string[] = [];
    const watching = (
      health.stub as unknown as Record<string, (request: object) => grpc.ClientReadableStream<object>>
    ).Watch?.({ service: SERVICE });
    const left = new Promise<void>((resolve) => {
      watching?.on('data', ({ status }: { status?: string }) => void seen.push(String(status)));
      watching?.on('error', () => resolve());
      watching?.on('end', () => resolve());
    });
    const session = http2.connect(`http://127.0.0.1:${served.port}`);
    session.on('error', () => undefined);
    const half = session.request({
      ...{ ':method': 'POST', ':path': `/${SERVICE}/ModelInfer` },
      ...{ 'content-type': 'application/grpc', te: 'trailers' },
    });
    half.on('error', () => undefined);
    half.write(Buffer.from([0, 0, 0]));
    for (let look = 0; look < 500 && seen.length === 0; look++) await delay(10);
    const answer = caller.call('ModelInfer', input({ contents: { bytes_contents: [BAG] } }));
    for (
      let look = 0;
      look < 500 &&
      own
        .metrics()
        .every(
          ({ name, samples }) => name !== 'senet_queue_waiting' || samples.every(({ value }) => value === 0),
        );
      look++
    )
      await delay(2);
    await served.close();
    expect(await answer).to.include({ model_name: 'net' });
    await left;
    expect(seen).to.have.length(2);
    for (const client of [health, caller]) client.close();
    session.destroy();
    await own.close();
  });

  it('tells its services, so that a client without the proto file can call them', async () => {
    const reflection = grpcClient(REFLECTION, 'grpc.reflection.v1.ServerReflection', server.port);
    const ask = (request: object): Promise<Record<string, unknown>> =>
      new Promise((resolve, reject) => {
        const stub = reflection.stub as unknown as {
          ServerReflectionInfo: () => grpc.ClientDuplexStream<object, Record<string, unknown>>;
        };
        const stream = stub.ServerReflectionInfo();
        stream.on('data', resolve).on('error', reject);
        stream.write(request);
        stream.end();
      });
    const { list_services_response: listed } = (await ask({ list_services: '' })) as {
      list_services_response: { service: { name: string }[] };
    };
    expect(listed.service.map(({ name }) => name)).to.have.members([SERVICE, 'grpc.health.v1.Health']);
    const { file_descriptor_response: files } = (await ask({ file_containing_symbol: SERVICE })) as {
      file_descriptor_response: { file_descriptor_proto: Buffer[] };
    };
    reflection.close();
    // A FileDescriptorSet: each file as its first field.
    const set = files.file_descriptor_proto.map((file) => {
      const length = [];
      for (let rest = file.length; ; rest >>>= 7) {
        length.push(rest > 127 ? (rest & 127) | 128 : rest);
        if (rest <= 127) break;
      }
      return Buffer.concat([Buffer.from([10, ...length]), file]);
    });
    const definition = loader.loadFileDescriptorSetFromBuffer(Buffer.concat(set), { keepCase: true });
    const told = grpcClient(definition, SERVICE, server.port);
    const answer = await told.call('ModelMetadata', { name: 'net' });
    told.close();
    expect((answer.inputs as object[])[0]).to.include({ name: 'input', datatype: 'FP32' });
    // As protoc names the entries of maps, which Go's clients insist on.
    const text = Buffer.concat(set).toString('latin1');
    expect(text.match(/ParametersEntry/g)).to.have.length(2 * 5);
    expect(text).to.not.match(/Parameters(?!Entry)/);

    const silent = await startGrpcServer(handler, { port: 0, reflection: false });
    const asking = grpcClient(REFLECTION, 'grpc.reflection.v1.ServerReflection', silent.port);
    const stub = asking.stub as unknown as {
      ServerReflectionInfo: () => grpc.ClientDuplexStream<object, object>;
    };
    const code = await new Promise((resolve) =>
      stub
        .ServerReflectionInfo()
        .on('error', (error) => resolve((error as grpc.ServiceError).code))
        .on('data', resolve)
        .end(),
    );
    expect(code).to.equal(grpc.status.UNIMPLEMENTED);
    asking.close();
    await silent.close();
  });

  it('speaks TLS where it has a certificate, and refuses what is none', async function () {
    const made = makeCertificate(temporary);
    if (made === undefined) skip(this, 'there is no openssl');
    const [cert, key] = [readFileSync(made.cert), readFileSync(made.key)];
    const secured = await startGrpcServer(handler, { port: 0, tls: { cert, key } });
    const knowing = grpcClient(PROTO, SERVICE, `localhost:${secured.port}`, grpc.credentials.createSsl(cert));
    const strange = grpcClient(PROTO, SERVICE, `localhost:${secured.port}`, grpc.credentials.createSsl());
    const plain = grpcClient(PROTO, SERVICE, secured.port);
    expect(await knowing.call('ServerLive', {})).to.deep.equal({ live: true });
    for (const one of [strange, plain])
      expect((await statusOf(one.call('ServerLive', {})))[0]).to.equal(grpc.status.UNAVAILABLE);
    for (const one of [knowing, strange, plain]) one.close();
    await secured.close();

    const start = (tls: unknown): Promise<GrpcServer> =>
      startGrpcServer(handler, { port: 0, tls: tls as never });
    await expectRejection(start({ cert, key: Buffer.from('no key') }), 'ERR_SENET_ARG_RANGE', /certificate/);
    await expectRejection(
      start({ cert, key: readFileSync(made.key, 'utf8') }),
      'ERR_SENET_ARG_TYPE',
      /tls: key/,
    );
    await expectRejection(start({ cert }), 'ERR_SENET_ARG_MISSING', /tls: key/);
    await expectRejection(start('cert.pem'), 'ERR_SENET_ARG_TYPE', /tls/);
  });
});
