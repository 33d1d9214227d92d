/** What the processor that the tests run on can do. */
import { existsSync, readFileSync } from 'node:fs';

/** Linux's names of its instruction sets; empty elsewhere. */
export const PROCESSOR_FLAGS = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : '';

/** Instruction sets without float16 to which oneDNN may be held. */
const WITHOUT_FLOAT16 = /^(sse41|avx|avx2|avx2_vnni|avx512_core|avx512_core_vnni|avx512_core_bf16)$/i;

/** Whether LibTorch computes with float16 on it. */
export const HAS_FLOAT16 =
  /\b(avx512_fp16|amx_fp16)\b/.test(PROCESSOR_FLAGS) &&
  !WITHOUT_FLOAT16.test(process.env.ONEDNN_MAX_CPU_ISA ?? process.env.DNNL_MAX_CPU_ISA ?? '');
