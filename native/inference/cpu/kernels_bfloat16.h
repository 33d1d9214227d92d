// float32 to bfloat16, to the nearest, ties to even; included by kernels_avx512.h and kernels_scalar.h.

inline uint16_t round_to_bfloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  if (x != x) {
    return 0x7fc0;
  }
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
