/**
 * training-checkpoint.pt (model, AdamW with two groups, OneCycleLR, generator) read, continued, and written back; Python
 * reads what was written and continues it as it continues its own. The last part needs a Python with torch.
 */
import { expect } from 'chai';
import { execFileSync } from 'node:child_process';

import { loadCheckpoint } from '../../lib/checkpoint/load';
import { saveCheckpoint } from '../../lib/checkpoint/save';
import { StateDict } from '../../lib/checkpoint/state-dict';
import { L1Loss } from '../../lib/nn/losses';
import { SELayer } from '../../lib/nn/se-layer';
import { AdamW } from '../../lib/optim/adam';
import { OneCycleLR } from '../../lib/optim/one-cycle';
import { SGD } from '../../lib/optim/sgd';
import { rand, tensor } from '../../lib/tensor/factories';
import { getRngState, setRngState } from '../../lib/tensor/runtime';
import { Tensor } from '../../lib/tensor/tensor';
import { findPython, fixture } from '../support/checkpoint-files';
import { numbers, readFixture, relativeError, type Values } from '../support/parity';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

interface Continuation {
  steps: { rates: number[]; betas: [number, number][]; norms: number[] }[];
  parameters: Values[];
  next: number[];
}

const { continuation } = readFixture<{ continuation: Continuation }>('training-more.json');

interface Run {
  model: SELayer;
  optimizer: AdamW;
  scheduler: OneCycleLR;
}

/** A run with other options than the checkpoint's, which must bring all of its own. */
function newRun(): Run {
  const model = new SELayer(64);
  const [first, second] = model.parameters() as [Tensor, Tensor];
  const optimizer = new AdamW([{ params: first }, { params: second }]);
  return { model, optimizer, scheduler: new OneCycleLR(optimizer, { maxLr: 1, totalSteps: 2 }) };
}

async function restore(file: string): Promise<{ run: Run; checkpoint: Map<string, unknown> }> {
  const checkpoint = (await loadCheckpoint(file)) as Map<string, unknown>;
  const run = newRun();
  run.model.loadStateDict(checkpoint.get('model') as StateDict);
  run.optimizer.loadStateDict(checkpoint.get('optimizer'));
  run.scheduler.loadStateDict(checkpoint.get('scheduler'));
  setRngState(checkpoint.get('rng') as Tensor);
  return { run, checkpoint };
}

async function step({ model, optimizer, scheduler }: Run): Promise<void> {
  const x = rand([2, 64, 4, 4]);
  const target = rand([2, 64, 4, 4]);
  optimizer.zeroGrad();
  await (await new L1Loss().forward(await model.forward(x), target)).backward();
  await optimizer.step();
  scheduler.step();
}

function expectStep({ model, optimizer }: Run, index: number): void {
  const expected = continuation.steps[index];
  for (const [i, group] of optimizer.paramGroups.entries()) {
    expect(group.lr, `step ${index}: lr`).to.be.closeTo(expected?.rates[i] ?? NaN, 1e-9);
    expect(group.betas?.[0], `step ${index}: beta`).to.be.closeTo(expected?.betas[i]?.[0] ?? NaN, 1e-9);
  }
  for (const [i, parameter] of model.parameters().entries()) {
    const norm = Math.hypot(...numbers(parameter));
    expect(norm, `step ${index}: parameter ${i}`).to.be.closeTo(expected?.norms[i] ?? NaN, 1e-6 * norm);
  }
}

/** Continues a file as make_training.py does, and prints the parameters and the next draws. */
const CONTINUE = `
import json, sys, torch
from collections import OrderedDict
saved = torch.load(sys.argv[1], weights_only=True)
assert type(saved['model']) is OrderedDict, type(saved['model'])
assert saved['epoch'] == 3 and type(saved['epoch']) is int and saved['best'] == 0.5 and saved['classes'] == ['a', 'b']
assert saved['args'] == {'lr': 0.02, 'name': 'x'}, saved['args']
first, second = (torch.nn.Parameter(saved['model'][key]) for key in ('fc.0.weight', 'fc.2.weight'))
optimizer = torch.optim.AdamW([{'params': [first]}, {'params': [second]}])
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1, total_steps=2)
optimizer.load_state_dict(saved['optimizer'])
scheduler.load_state_dict(saved['scheduler'])
torch.set_rng_state(saved['rng'])
while scheduler.last_epoch < scheduler.total_steps - 1:
    x, target = torch.rand(2, 64, 4, 4), torch.rand(2, 64, 4, 4)
    optimizer.zero_grad()
    y = torch.sigmoid(torch.relu(x.mean((2, 3)) @ first.T) @ second.T)
    torch.nn.functional.l1_loss(x * y[:, :, None, None], target).backward()
    optimizer.step()
    scheduler.step()
print(json.dumps({'parameters': [p.flatten().tolist() for p in (first, second)], 'next': torch.rand(4).tolist()}))
`;

describe('parity: a training checkpoint of PyTorch', function () {
  this.timeout(60_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  const source = fixture('training-checkpoint.pt');

  it('is read whole', async () => {
    const { run, checkpoint } = await restore(source);
    expect([...checkpoint.keys()]).to.deep.equal([
      ...['epoch', 'model', 'optimizer', 'scheduler', 'best', 'rng', 'classes', 'args'],
    ]);
    expect(run.optimizer.paramGroups.map(({ weightDecay }) => weightDecay)).to.deep.equal([0.01, 0]);
    expect(run.optimizer.stateDict().state.get(1)?.step?.item()).to.be.above(0);
    expect(run.scheduler.lastEpoch).to.equal(3);
    expect(run.scheduler.getLastLr()).to.deep.equal(run.optimizer.paramGroups.map(({ lr }) => lr));
  });

  it('is continued as PyTorch continues it', async () => {
    const { run } = await restore(source);
    for (const index of continuation.steps.keys()) {
      await step(run);
      expectStep(run, index);
    }
    for (const [i, parameter] of run.model.parameters().entries())
      expect(relativeError(parameter, continuation.parameters[i]?.values ?? [])).to.be.below(1e-6);
    expect(numbers(rand([4]))).to.deep.equal(continuation.next);
  });

  it('written back, is read as it was; saved in the middle, ends with the same bits', async () => {
    const back = temporary.path('back.pt');
    await saveCheckpoint(await loadCheckpoint(source), back);
    const { run } = await restore(back);
    const half = Math.floor(continuation.steps.length / 2);
    for (let i = 0; i < half; i++) await step(run);
    const middle = temporary.path('middle.pt');
    await saveCheckpoint(
      {
        model: run.model.stateDict(),
        optimizer: run.optimizer.stateDict(),
        scheduler: run.scheduler.stateDict(),
        rng: getRngState(),
      },
      middle,
    );
    const { run: resumed } = await restore(middle);
    for (let i = half; i < continuation.steps.length; i++) await step(resumed);
    expectStep(resumed, continuation.steps.length - 1);

    const { run: uninterrupted } = await restore(source);
    for (let i = 0; i < continuation.steps.length; i++) await step(uninterrupted);
    for (const [i, parameter] of resumed.model.parameters().entries())
      expect(numbers(parameter)).to.deep.equal(numbers(uninterrupted.model.parameters()[i] as Tensor));
  });

  it('written back, is read and continued by Python', async function () {
    const python = findPython();
    if (python === null) {
      skip(this, 'no Python with torch and safetensors (set SENET_TEST_PYTHON to one)');
    }
    // Through our own objects, so that Python reads what they write and not what a file said.
    const { run, checkpoint } = await restore(source);
    const file = temporary.path('for-python.pt');
    const rest = Object.fromEntries(
      ['epoch', 'best', 'rng', 'classes', 'args'].map((key) => [key, checkpoint.get(key)]),
    );
    await saveCheckpoint(
      {
        ...rest,
        model: run.model.stateDict(),
        optimizer: run.optimizer.stateDict(),
        scheduler: run.scheduler.stateDict(),
      },
      file,
    );
    const printed = execFileSync(python, ['-c', CONTINUE, file], { maxBuffer: 64e6 }).toString();
    const { parameters, next } = JSON.parse(printed) as { parameters: number[][]; next: number[] };
    for (const [i, values] of parameters.entries())
      expect(relativeError(values, continuation.parameters[i]?.values ?? [])).to.be.below(1e-6);
    expect(next).to.deep.equal(continuation.next);
  });

  it('an SGD of this library, read by Python, has its momentum', async function () {
    const python = findPython();
    if (python === null) skip(this, 'no Python with torch and safetensors (set SENET_TEST_PYTHON to one)');
    const weight = tensor([1, 2], { requiresGrad: true });
    const optimizer = new SGD([{ params: weight, name: 'only' }], { lr: 0.5, momentum: 0.9, nesterov: true });
    weight.grad = tensor([3, 4]);
    await optimizer.step();
    const file = temporary.path('sgd.pt');
    await saveCheckpoint(optimizer.stateDict(), file);
    const program = `
import sys, torch
p = torch.nn.Parameter(torch.tensor([0.0, 0.0]))
o = torch.optim.SGD([p], lr=1)
o.load_state_dict(torch.load(sys.argv[1], weights_only=True))
p.grad = torch.tensor([0.0, 0.0])
o.step()
g = o.param_groups[0]
print(o.state[p]['momentum_buffer'].tolist() + p.tolist(), g['lr'], g['nesterov'], g['name'], sep=';')`;
    const printed = execFileSync(python, ['-c', program, file]).toString().trim();
    const [values = '', ...options] = printed.split(';');
    expect(options).to.deep.equal(['0.5', 'True', 'only']);
    // One more step with a gradient of 0: the buffer keeps 0.9 of it, and Nesterov's step is 0.9 of that times lr.
    expect(relativeError(JSON.parse(values) as number[], [2.7, 3.6, -1.215, -1.62])).to.be.below(1e-6);
  });
});
