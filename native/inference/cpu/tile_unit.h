// The matrix unit of kernels_tiles.h in the processor: AMX. Included in an anonymous namespace, as that is.
//
// Not the compiler's intrinsics: GCC's are macros that paste a tile's number into the text of the
// instruction, which a template's argument cannot be, and say nothing of the memory that they read.
struct AmxTiles {
  static void configure(const void* configuration) {
    asm volatile("ldtilecfg (%0)" : : "r"(configuration) : "memory");
  }
  // Without it the system saves and restores eight kilobytes whenever threads take turns.
  static void release() {
    asm volatile("tilerelease" : : : "memory");
  }
  template <int kTile>
  static void load(const void* from, int64_t pitch) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(pitch), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* to, int64_t pitch) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(pitch), "i"(kTile) : "memory");
  }
  template <int kSums, int kWindows, int kWeights>
  static void multiply_bfloat16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kWindows), "i"(kWeights));
  }
  template <int kSums, int kWindows, int kWeights>
  static void multiply_bytes() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kWindows), "i"(kWeights));
  }
};
