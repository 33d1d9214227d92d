/** The device that the device tests run on: SENET_TEST_DEVICE, or the CPU. */
import { cuda, type Device } from '../../lib';

export const device = (process.env.SENET_TEST_DEVICE ?? 'cpu') as Device;

/** Why tests on `device` cannot run here; undefined if they can. */
export function unavailable(): string | undefined {
  if (device === 'cpu' || cuda.isAvailable()) return undefined;
  return `SENET_TEST_DEVICE=${device}, and this machine has no CUDA device`;
}
