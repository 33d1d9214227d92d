/** The configuration file of `serve`: whose paths are beside it, and which words are no paths. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { readServeConfig } from '../../lib/cli/serve-config';
import type { ServeOptions } from '../../lib/cli/serve-options';
import { expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';

describe('the configuration file of serve', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  const read = (content: unknown, options: Partial<ServeOptions> = {}) => {
    const config = temporary.path('serve.json');
    writeFileSync(config, JSON.stringify(content));
    return readServeConfig({ ...options, config } as ServeOptions);
  };
  const beside = (name: string): string => path.join(temporary.folder, name);

  it('has its paths beside it, and names stay names', async () => {
    const { models } = await read({
      models: {
        file: { weights: 'best.safetensors', labels: 'names', preprocessing: 'pixels.json' },
        below: { model: 'nets/a.pt' },
        folder: { model: 'local-dir:nets' },
        absolute: { weights: '/weights/a.pth' },
        hub: { weights: 'hf-hub:timm/seresnet50.a1_in1k' },
        tag: { model: 'seresnet50.a1_in1k' },
        published: { model: 'se_resnet20', weights: 'fashion_mnist', labels: ['a', 'b'] },
        record: { model: 'se_resnet20', preprocessing: { mean: [0.5] } },
      },
    });
    const said = (name: string) => {
      const { model, weights, labels, preprocessing } = models?.[name] ?? {};
      return JSON.parse(JSON.stringify({ model, weights, labels, preprocessing })) as unknown;
    };
    expect(said('file')).to.deep.equal({
      weights: beside('best.safetensors'),
      labels: beside('names'),
      preprocessing: beside('pixels.json'),
    });
    expect(said('below')).to.deep.equal({ model: beside('nets/a.pt') });
    expect(said('folder')).to.deep.equal({ model: `local-dir:${beside('nets')}` });
    expect(said('absolute')).to.deep.equal({ weights: '/weights/a.pth' });
    expect(said('hub')).to.deep.equal({ weights: 'hf-hub:timm/seresnet50.a1_in1k' });
    expect(said('tag')).to.deep.equal({ model: 'seresnet50.a1_in1k' });
    expect(said('published')).to.deep.equal({
      model: 'se_resnet20',
      weights: 'fashion_mnist',
      labels: ['a', 'b'],
    });
    expect(said('record')).to.deep.equal({ model: 'se_resnet20', preprocessing: { mean: [0.5] } });
  });

  it('has the server’s files beside it, and the command line’s where it was typed', async () => {
    const file = { watch: 'models', tlsCert: 'certificate.pem', tlsKey: '/keys/key.pem' };
    const config = await read(file);
    expect([config.watch, config.tlsCert, config.tlsKey]).to.deep.equal([
      beside('models'),
      beside('certificate.pem'),
      '/keys/key.pem',
    ]);
    expect((await read(file, { watch: 'others' })).watch).to.equal('others');
  });

  it('refuses what is no path, no model and no key', async () => {
    await expectRejection(read({ watch: 3 }), 'ERR_SENET_ARG_TYPE', /watch/);
    await expectRejection(read({ models: [] }), 'ERR_SENET_ARG_TYPE', /models/);
    await expectRejection(read({ models: { a: { weight: 'x' } } }), 'ERR_SENET_UNKNOWN_OPTION', /models: a/);
    await expectRejection(read({ apiKey: ['short'] }), 'ERR_SENET_ARG_RANGE', /8 characters/);
    await expectRejection(
      read({ allowUrls: { hosts: ['a.org:80/x'] } }),
      'ERR_SENET_ARG_RANGE',
      /allowUrls: hosts/,
    );
    // An environment that has nothing (`--host "$HOST"`) would open the server to every address.
    await expectRejection(read({ host: '' }), 'ERR_SENET_ARG_RANGE', /host: expected an address/);
    await expectRejection(read({}, { host: '' }), 'ERR_SENET_ARG_RANGE', /host: expected an address/);
  });

  it('refuses keys that no request can carry, and repeats none', async () => {
    for (const key of ['secret-key\n', ' secret-key', 'secret-kéy', 'secret\tkey1']) {
      const error = await expectRejection(read({ apiKey: [key] }), 'ERR_SENET_ARG_RANGE', /8 characters/);
      expect(error.message).not.to.contain('secret');
      temporary.environment({ SENET_API_KEY: key });
      await expectRejection(read({}), 'ERR_SENET_ARG_RANGE', /SENET_API_KEY/);
      temporary.environment({ SENET_API_KEY: undefined });
    }
    const { message } = await expectRejection(
      read({ apiKey: 'secret-key' }),
      'ERR_SENET_ARG_TYPE',
      /an array/,
    );
    expect(message).not.to.contain('secret');
    expect((await read({ apiKey: ['secret key'] })).apiKey).to.deep.equal(['secret key']);
  });

  it('begins with a byte-order mark where an editor has put one', async () => {
    const config = temporary.path('marked.json');
    writeFileSync(config, '\ufeff{\r\n  "port": 1234\r\n}\r\n');
    expect((await readServeConfig({ config } as ServeOptions)).port).to.equal(1234);
  });

  it('refuses options of one network beside those of the file, and beside a folder of others', async () => {
    const models = { a: { model: 'se_resnet20' } };
    await expectRejection(read({ models }, { checkHash: false }), 'ERR_SENET_ARG_RANGE', /--no-check-hash/);
    expect((await read({ models }, { checkHash: true, device: 'cpu' })).models).to.have.property('a');
    await expectRejection(
      read({}, { watch: 'models', name: 'net' }),
      'ERR_SENET_ARG_RANGE',
      /--name: .*--watch/,
    );
    expect(await read({}, { watch: 'models', name: 'net', pretrained: true })).to.include({
      watch: 'models',
    });
  });
});
