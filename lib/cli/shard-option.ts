/** `--shard`: a part of a list as it is typed, or as a scheduler gives it to a process. Loads nothing native. */
import type { Shard } from '../bulk/image-list';
import { checkShard } from '../bulk/shard';
import { makeError } from '../errors';

/**
 * '3/8', or '/8': the part that Kubernetes (an indexed Job, from 0) or Slurm (a task of an array, whose first and step are in
 * the environment) has given this process.
 *
 * @throws ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING (no scheduler says which part)
 */
export function shardOption(typed: string, environment: NodeJS.ProcessEnv): Shard {
  if (!typed.startsWith('/')) return checkShard(typed, '--shard');
  const { JOB_COMPLETION_INDEX: index = '', SLURM_ARRAY_TASK_ID: task = '' } = environment;
  const { SLURM_ARRAY_TASK_MIN: first = '0', SLURM_ARRAY_TASK_STEP: step = '1' } = environment;
  if (index === '' && task === '') {
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `--shard ${typed}: expected JOB_COMPLETION_INDEX (Kubernetes) or SLURM_ARRAY_TASK_ID in the environment, or a part such as 3${typed}`,
    );
  }
  const number = index === '' ? (Number(task) - Number(first)) / Number(step) : Number(index);
  const from =
    index === ''
      ? `SLURM_ARRAY_TASK_ID ${task} (from ${first}, step ${step})`
      : `JOB_COMPLETION_INDEX ${index}`;
  return checkShard(`${number + 1}${typed}`, `--shard ${typed} with ${from}`);
}
