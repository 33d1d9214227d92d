/** Where weights are kept: torch.hub's folder, file names and hash prefixes, and what is asked of a URL. */
import { mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { expect } from 'chai';

import { checkpointsFolder, fileNameOf, hashPrefixOf, parseUrl } from '../../lib/hub/cache';
import { fetchWeights } from '../../lib/hub/hub';
import { Temporary } from '../support/temporary';

describe("torch.hub's cache", () => {
  let temporary: Temporary;
  beforeEach(() => {
    temporary = new Temporary();
    temporary.environment({ TORCH_HOME: undefined, XDG_CACHE_HOME: undefined, SENET_OFFLINE: '1' });
  });
  afterEach(() => temporary.cleanUp());

  it('lies in TORCH_HOME, else in XDG_CACHE_HOME, else in ~/.cache', () => {
    const below = path.join('hub', 'checkpoints');
    expect(checkpointsFolder()).to.equal(path.join(os.homedir(), '.cache', 'torch', below));
    temporary.environment({ XDG_CACHE_HOME: '/xdg' });
    expect(checkpointsFolder()).to.equal(path.join('/xdg', 'torch', below));
    temporary.environment({ TORCH_HOME: '/torch' });
    expect(checkpointsFolder()).to.equal(path.join('/torch', below));
    for (const [home, expected] of [
      ['~/models', path.join(os.homedir(), 'models')],
      ['~', os.homedir()],
    ] as const) {
      temporary.environment({ TORCH_HOME: home });
      expect(checkpointsFolder()).to.equal(path.join(expected, below));
    }
  });

  it("names files as Python's basename of the URL's path does", () => {
    for (const [url, name] of [
      ['https://host/a/seresnet50-60a8950a85b2b.pkl', 'seresnet50-60a8950a85b2b.pkl'],
      ['https://host/x.pt?download=1#part', 'x.pt'],
      ['https://host/torch-2.13.0%2Bcpu.pt', 'torch-2.13.0%2Bcpu.pt'],
      ['https://host/a%2Fb.pt', 'a%2Fb.pt'],
      ['https://host/odd%zz.pt', 'odd%zz.pt'],
    ] as const) {
      expect(fileNameOf(parseUrl(url))).to.equal(name);
    }
  });

  it("reads the hash prefix by torch.hub's regular expression", () => {
    expect(hashPrefixOf('seresnet50-60a8950a85b2b.pkl')).to.equal('60a8950a85b2b');
    expect(hashPrefixOf('resnet-v2-0123abcd.pth.tar')).to.equal('0123abcd');
    expect(hashPrefixOf('model.pt')).to.equal(undefined);
    expect(hashPrefixOf('model-UPPER.pt')).to.equal(undefined);
  });

  it('gives the path of a cached file as it is, whatever its hash', async () => {
    temporary.environment({ TORCH_HOME: temporary.folder });
    const folder = temporary.path('hub', 'checkpoints');
    mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, 'x-00000000.pt'), 'anything');
    expect(await fetchWeights('https://host.invalid/x-00000000.pt')).to.equal(
      path.join(folder, 'x-00000000.pt'),
    );
  });

  const refused: [string, unknown, unknown, string][] = [
    ['a URL that is a number', 5, { fileName: 'x.pt' }, 'ERR_SENET_ARG_TYPE'],
    ['another protocol, a file name given', 'ftp://host/x.pt', { fileName: 'x.pt' }, 'ERR_SENET_ARG_RANGE'],
    ['a URL without a file name', 'https://host/', {}, 'ERR_SENET_ARG_RANGE'],
    ['a file name that leaves the folder', 'https://host/x.pt', { fileName: '../x' }, 'ERR_SENET_ARG_RANGE'],
    ['checkHash that is no boolean', 'https://host/x.pt', { checkHash: 'no' }, 'ERR_SENET_ARG_TYPE'],
    ['modelDir that is no string', 'https://host/x.pt', { modelDir: 5 }, 'ERR_SENET_ARG_TYPE'],
    ['an unknown option', 'https://host/x.pt', { check_hash: true }, 'ERR_SENET_UNKNOWN_OPTION'],
    ['a file that is not there, offline', 'https://host/x.pt', {}, 'ERR_SENET_OFFLINE'],
  ];
  for (const [name, url, options, code] of refused) {
    it(`refuses ${name}`, async () => {
      temporary.environment({ TORCH_HOME: temporary.folder });
      const error: unknown = await fetchWeights(url as string, options as object).then(
        () => expect.fail('it should reject'),
        (reason: unknown) => reason,
      );
      expect(error).to.have.property('code', code);
    });
  }
});
