/**
 * Where the processes of a group meet and which of them this one is: the environment variables that `torchrun` sets (and
 * Kubernetes' training operator, and scripts for Slurm), which options go before. Knows nothing native.
 */
import type { Device } from '../binding';
import { makeError } from '../errors';
import { integer, milliseconds, optional, orElse, string, type Values } from '../tensor/rules';
import { describe } from '../tensor/options';

export interface RendezvousOptions {
  /** Of this process, from 0. Default: `RANK`. */
  rank?: number;
  /** Processes in the group. Default: `WORLD_SIZE`. */
  worldSize?: number;
  /** The machine of rank 0. Default: `MASTER_ADDR`. */
  masterAddr?: string;
  /** Of the group's store there. Default: `MASTER_PORT`. */
  masterPort?: number;
  /** Milliseconds that connecting may take, and each collective. Default 1,800,000, as PyTorch's. */
  timeout?: number;
}

const HALF_AN_HOUR = 1_800_000;

export const RENDEZVOUS = {
  rank: optional(integer(0)),
  worldSize: optional(integer(1, 65536)),
  masterAddr: optional(string),
  masterPort: optional(integer(0, 65535)),
  timeout: orElse(HALF_AN_HOUR, milliseconds(1)),
};

export interface Rendezvous {
  readonly rank: number;
  readonly worldSize: number;
  readonly host: string;
  readonly port: number;
  /** Whether rank 0 has the store; else whoever started the processes does. */
  readonly rank0HostsStore: boolean;
  readonly timeout: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** @throws ERR_SENET_ARG_MISSING (naming the variable), ERR_SENET_ARG_RANGE */
export function findRendezvous(
  given: Values<typeof RENDEZVOUS>,
  environment: Environment,
  where: string,
): Rendezvous {
  const text = (option: string, variable: string): string => {
    const value = environment[variable];
    if (value !== undefined && value !== '') return value;
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `${where}: ${option}: neither the option nor the environment variable ${variable} is set; torchrun --no-python sets it`,
    );
  };
  const number = (option: string, variable: string, minimum: number, maximum: number): number => {
    const value = text(option, variable);
    if (/^\d+$/.test(value) && Number(value) >= minimum && Number(value) <= maximum) return Number(value);
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: ${option}: expected an integer from ${minimum} to ${maximum} in ${variable}, got ${describe(value)}`,
    );
  };
  const worldSize = given.worldSize ?? number('worldSize', 'WORLD_SIZE', 1, 65536);
  const rank = given.rank ?? number('rank', 'RANK', 0, worldSize - 1);
  if (rank >= worldSize) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: rank: expected an integer from 0 to ${worldSize - 1} in a group of ${worldSize}, got ${rank}`,
    );
  }
  return {
    rank,
    worldSize,
    host: given.masterAddr ?? text('masterAddr', 'MASTER_ADDR'),
    port: given.masterPort ?? number('masterPort', 'MASTER_PORT', 0, 65535),
    // Of torch/distributed/rendezvous.py: torchrun's agent has the store that it tells its processes of.
    rank0HostsStore: environment.TORCHELASTIC_USE_AGENT_STORE !== 'True',
    timeout: given.timeout,
  };
}

/**
 * Of a process: 'cuda' is the GPU of its number on this machine (`LOCAL_RANK`), for processes that share a machine; unless it
 * sees one alone, which is then its own (`CUDA_VISIBLE_DEVICES`).
 */
export function deviceOfRank(device: Device, environment: Environment, devices: number): Device {
  const { LOCAL_RANK: rank } = environment;
  const isShared = device === 'cuda' && devices > 1 && rank !== undefined && /^\d{1,4}$/.test(rank);
  return isShared ? `cuda:${Number(rank)}` : device;
}
