/** The machine that a report was made on. */
import os from 'node:os';

import { binding } from '../native';
import { version } from '../tensor/runtime';
import type { Fact } from './report-page';

export function machineFacts(): Fact[] {
  return [
    ['processor', `${os.cpus()[0]?.model.trim() ?? 'unknown'}, ${os.cpus().length} cores`],
    ['threads', String(binding.configuration().threadsPerWorker)],
    ['memory', `${(os.totalmem() / 1024 ** 3).toFixed(1)} GiB`],
    ['system', `${os.type()} ${os.release()} ${os.arch()}`],
    ['senet-torch', version.package],
    ['LibTorch', `${version.libtorch} (${binding.libtorchConfig().cpuCapability})`],
    ['Node', version.node],
    ['finished', new Date().toISOString()],
  ];
}
