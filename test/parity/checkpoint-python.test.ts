/**
 * What `save` writes, read by Python: `torch.load(weights_only=True)` and safetensors. Needs a Python with
 * torch.
 */
import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { load } from '../../lib/checkpoint/load';
import { saveWeights as save } from '../../lib/checkpoint/save';
import { StateDict } from '../../lib/checkpoint/state-dict';
import { findPython, fixture, zipOf } from '../support/checkpoint-files';
import { skip } from '../support/skip';

/**
 * Prints, for each file, dtype, shape, stride, requires_grad and bytes of each tensor, metadata and shared
 * storages.
 */
const READ = `
import json, sys, torch
from safetensors.torch import load_file, safe_open
def describe(t):
    data = t.detach().contiguous().view(-1).view(torch.uint8) if t.numel() else torch.empty(0, dtype=torch.uint8)
    return [str(t.dtype)[6:], list(t.shape), list(t.stride()), t.requires_grad, bytes(data.tolist()).hex()]
out = {}
for f in sys.argv[1:]:
    if f.endswith('.safetensors'):
        sd, extra = load_file(f), safe_open(f, 'pt').metadata()
    else:
        sd = torch.load(f, weights_only=True)
        torch.load(f, weights_only=True, mmap=True)
        extra = {k: dict(v) for k, v in getattr(sd, '_metadata', {}).items()}
    storages = {}
    for k, t in sd.items(): storages.setdefault(t.untyped_storage().data_ptr() if t.numel() else k, []).append(k)
    out[f] = dict(type=type(sd).__name__, tensors=[[k, *describe(t)] for k, t in sd.items()], extra=extra, shared=list(storages.values()))
print(json.dumps(out))
`;

interface Seen {
  type: string;
  tensors: [string, string, number[], number[], boolean, string][];
  extra: Record<string, unknown>;
  shared: string[][];
}

describe('parity: files for Python', function () {
  this.timeout(60_000);
  let python: string;
  let folder: string;
  before(function () {
    const found = findPython();
    if (found === null) {
      skip(this, 'no Python with torch and safetensors (set SENET_TEST_PYTHON to one)');
    }
    python = found;
    folder = mkdtempSync(path.join(tmpdir(), 'senet-python-'));
  });
  after(() => {
    if (folder) rmSync(folder, { recursive: true });
  });
  const read = (...files: string[]): Seen[] => {
    const printed = execFileSync(python, ['-c', READ, ...files], { maxBuffer: 64e6 }).toString();
    const seen = JSON.parse(printed) as Record<string, Seen>;
    return files.map((file) => seen[file] as Seen);
  };
  const hex = (state: StateDict, key: string): string => {
    const array = state.get(key)?.toTypedArray();
    if (array === undefined) throw new Error(`${key} is missing`);
    return Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString('hex');
  };

  it('every dtype, scalars, empty tensors, views, metadata and a network', async () => {
    const sources: Record<string, string> = {
      dtypes: fixture('checkpoints', 'dtypes.pt'),
      views: fixture('checkpoints', 'views.pt'),
      network: fixture('se_resnet20-zip.pt'),
    };
    const written: { file: string; state: StateDict }[] = [];
    for (const [name, source] of Object.entries(sources)) {
      const state = await load(source);
      for (const extension of name === 'views' ? ['pt'] : ['pt', 'safetensors']) {
        const file = path.join(folder, `${name}.${extension}`);
        await save(state, file, { metadata: { note: 'é' } });
        written.push({ file, state });
      }
    }
    const seen = read(...written.map(({ file }) => file));
    for (const [i, { file, state }] of written.entries()) {
      const { tensors, extra, type, shared } = seen[i] as Seen;
      const pt = file.endsWith('.pt');
      expect(tensors.map(([key]) => key).sort(), file).to.deep.equal([...state.keys()].sort());
      for (const [key, dtype, shape, , requiresGrad, bytes] of tensors) {
        const tensor = state.get(key);
        expect([dtype, shape], `${file} ${key}`).to.deep.equal([tensor?.dtype, tensor?.shape]);
        expect(bytes, `${file} ${key}`).to.equal(hex(state, key));
        if (pt) expect(requiresGrad, key).to.equal(tensor?.requiresGrad);
      }
      if (pt) {
        expect(type).to.equal('OrderedDict');
        expect(tensors.map(([key]) => key)).to.deep.equal([...state.keys()]);
        expect(extra).to.deep.equal(Object.fromEntries(state.metadata));
      } else expect(extra).to.deep.equal({ format: 'pt', note: 'é' });
      if (file.endsWith('views.pt')) {
        expect(tensors.find(([key]) => key === 'transposed')?.[3]).to.deep.equal([1, 6]);
        expect(
          shared.filter((keys) => keys.includes('whole') || keys.includes('matrix')).flat(),
        ).to.include.members(['whole', 'matrix', 'transposed']);
      }
    }
  });

  it('safetensors are byte for byte what Python writes', async () => {
    const file = path.join(folder, 'again.safetensors');
    await save(await load(fixture('se_resnet20.safetensors')), file);
    expect(readFileSync(file).equals(readFileSync(fixture('se_resnet20.safetensors')))).to.equal(true);
  });

  it('zip64 archives, as our writer makes them', async () => {
    const zip = await load(fixture('checkpoints', 'cuda.pt')).then(async (state) => {
      await save(state, path.join(folder, 'small.pt'));
      return readFileSync(path.join(folder, 'small.pt'));
    });
    // The same entries, with every size and offset in zip64 fields.
    const list = `
import json, sys, zipfile
z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None
print(json.dumps({i.filename: z.read(i).hex() for i in z.infolist()}))`;
    const entries = JSON.parse(
      execFileSync(python, ['-c', list, path.join(folder, 'small.pt')]).toString(),
    ) as Record<string, string>;
    const large = await zipOf(
      Object.fromEntries(Object.entries(entries).map(([name, data]) => [name, Buffer.from(data, 'hex')])),
      0,
    );
    expect(large.length).to.be.above(zip.length);
    writeFileSync(path.join(folder, 'large.pt'), large);
    execFileSync(python, ['-c', list, path.join(folder, 'large.pt')]);
    const [small, big] = read(path.join(folder, 'small.pt'), path.join(folder, 'large.pt'));
    expect(big).to.deep.equal(small);
  });
});
