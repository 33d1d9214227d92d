/** What the processor that the tests run on can do. */
import { existsSync, readFileSync } from 'node:fs';

/** Linux's names of its instruction sets; empty elsewhere. */
export const PROCESSOR_FLAGS = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : '';

/** Whether LibTorch computes with float16 on it. */
export const HAS_FLOAT16 = /\b(avx512_fp16|amx_fp16)\b/.test(PROCESSOR_FLAGS);
