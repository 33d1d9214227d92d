// The processor's own limit: how many fused multiply-adds a second N threads reach on registers alone, in
// float32 and, where the processor has the instructions for it, in bfloat16 with float32 accumulation and of
// bytes with int32 accumulation (VNNI); and the same of the processor's matrix unit (AMX). No
// memory, no library; the shares that the benchmark prints are of these numbers.
//
// c++ -std=c++17 -O3 -march=native -pthread peak.cpp -o peak && ./peak THREADS
// Prints {"instructions": ..., "float32": GFLOP/s, "bfloat16": GFLOP/s or null, "int8": the same, "amx":
// {"bfloat16": ..., "int8": ...} or why it was not measured}, the best of several runs.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>
#if defined(__AVX512BF16__) || defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__AMX_TILE__)
#include <immintrin.h>
#endif
#if defined(__linux__) && defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define SENET_PEAK_AMX
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
const char* const kInstructions = "AVX-512";
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kVectorBytes = 32;
const char* const kInstructions = "AVX2";
#else
constexpr int kVectorBytes = 16;
const char* const kInstructions = "128-bit vectors";
#endif

typedef float Vector __attribute__((vector_size(kVectorBytes)));

// Enough independent chains to hide the latency (4 cycles) of two units, and few enough for 16 registers. One
// variable each: an array would live in memory.
#define FOR_EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
constexpr int kChains = 12;
constexpr long kSteps = 1'000'000;
constexpr int kRuns = 200;  // about 0.5 s in all

volatile float sink;

// An empty statement that the compiler takes for a change of `value`, so that it neither folds nor merges
// chains.
template <typename T>
inline void pin(T& value) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(value));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(value));
#endif
}

struct Float32 {
  static constexpr double kFlopsPerStep = 2.0 * kChains * kVectorBytes / sizeof(float);
  static void run() {
    Vector scale = Vector{} + 0.999f, addend = Vector{} + 0.001f;
    pin(scale);
    pin(addend);
#define START(i) Vector chain##i = Vector{} + float{i};
    FOR_EACH_CHAIN(START)
    for (long step = 0; step < kSteps; step++) {
#define ADVANCE(i) chain##i = chain##i * scale + addend; /* contracted to one instruction */
      FOR_EACH_CHAIN(ADVANCE)
#define PIN(i) pin(chain##i);
      FOR_EACH_CHAIN(PIN)
    }
#define END(i) sink = chain##i[0];
    FOR_EACH_CHAIN(END)
#undef START
#undef ADVANCE
#undef END
  }
};

#if defined(__AVX512BF16__)
struct BFloat16 {
  static constexpr double kFlopsPerStep = 2.0 * kChains * 32;
  static void run() {
    const __m512bh left = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
    const __m512bh right = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3f), _mm512_set1_ps(1e-3f));
#define START(i) __m512 chain##i = _mm512_set1_ps(float{i});
    FOR_EACH_CHAIN(START)
    for (long step = 0; step < kSteps; step++) {
#define ADVANCE(i) chain##i = _mm512_dpbf16_ps(chain##i, left, right);
      FOR_EACH_CHAIN(ADVANCE)
      FOR_EACH_CHAIN(PIN)
    }
#define END(i) sink = _mm512_cvtss_f32(chain##i);
    FOR_EACH_CHAIN(END)
#undef START
#undef ADVANCE
#undef END
  }
};
#endif

#if defined(__AVX512VNNI__)
#define SENET_PEAK_INT8
struct Int8 {
  static constexpr double kFlopsPerStep = 2.0 * kChains * 64;
  static void run() {
    __m512i bytes = _mm512_set1_epi32(0x01010101);
    pin(bytes);
#define START(i) __m512i chain##i = _mm512_set1_epi32(i);
    FOR_EACH_CHAIN(START)
    for (long step = 0; step < kSteps; step++) {
#define ADVANCE(i) chain##i = _mm512_dpbusd_epi32(chain##i, bytes, bytes);
      FOR_EACH_CHAIN(ADVANCE)
      FOR_EACH_CHAIN(PIN)
    }
#define END(i) sink = static_cast<float>(_mm_cvtsi128_si32(_mm512_castsi512_si128(chain##i)));
    FOR_EACH_CHAIN(END)
#undef START
#undef ADVANCE
#undef END
  }
};
#elif defined(__AVXVNNI__)
#define SENET_PEAK_INT8
struct Int8 {
  static constexpr double kFlopsPerStep = 2.0 * kChains * 32;
  static void run() {
    __m256i bytes = _mm256_set1_epi32(0x01010101);
    pin(bytes);
#define START(i) __m256i chain##i = _mm256_set1_epi32(i);
    FOR_EACH_CHAIN(START)
    for (long step = 0; step < kSteps; step++) {
#define ADVANCE(i) chain##i = _mm256_dpbusd_avx_epi32(chain##i, bytes, bytes);
      FOR_EACH_CHAIN(ADVANCE)
      FOR_EACH_CHAIN(PIN)
    }
#define END(i) sink = static_cast<float>(_mm_cvtsi128_si32(_mm256_castsi256_si128(chain##i)));
    FOR_EACH_CHAIN(END)
#undef START
#undef ADVANCE
#undef END
  }
};
#endif

#if defined(SENET_PEAK_AMX)
// All tiles of 16 rows of 64 bytes: four of sums, two of each operand, as convolutions have them.
struct Tiles {
  static constexpr long kTileSteps = kSteps / 16;
  static constexpr double kBfloat16Flops = 2.0 * 4 * 16 * 16 * 32;  // of a step

  static void begin() {
    alignas(64) unsigned char configuration[64] = {1};
    for (int tile = 0; tile < 8; tile++) {
      configuration[16 + 2 * tile] = 64;
      configuration[48 + tile] = 16;
    }
    asm volatile("ldtilecfg (%0)" : : "r"(configuration) : "memory");
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
  }
};

struct TilesOfBfloat16 : Tiles {
  static constexpr double kFlopsPerStep = kBfloat16Flops / 16;  // counted in kSteps
  static void run() {
    begin();
    for (long step = 0; step < kTileSteps; step++) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
  }
};

struct TilesOfInt8 : Tiles {
  static constexpr double kFlopsPerStep = 2 * kBfloat16Flops / 16;
  static void run() {
    begin();
    for (long step = 0; step < kTileSteps; step++) {
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
    }
    _tile_release();
  }
};
#endif

/// The team stays for all runs, so that the scheduler has time to give each thread a core of its own; the
/// calling thread is one of it. A run lasts from the moment at which the last thread arrives at its beginning
/// to the moment at which the last one has ended, however they were scheduled. The best run counts.
template <typename Kind>
double best_gigaflops(int threads) {
  using Clock = std::chrono::steady_clock;
  std::atomic<int> arrived{0};
  Clock::time_point start;
  double best = 0;
  const auto work = [&](bool measures) {
    for (int run = 0; run < kRuns; run++) {
      const int all_at_start = threads * (2 * run + 1), all_at_end = all_at_start + threads;
      const auto now = Clock::now();
      if (++arrived == all_at_start) {
        start = now;
      }
      while (arrived < all_at_start) {
      }
      Kind::run();
      arrived++;
      while (arrived < all_at_end) {
      }
      if (measures) {
        const std::chrono::duration<double> seconds = Clock::now() - start;
        best = std::max(best, threads * kSteps * Kind::kFlopsPerStep / seconds.count() / 1e9);
      }
    }
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; i++) {
    others.emplace_back(work, false);
  }
  work(true);
  for (std::thread& other : others) {
    other.join();
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  std::printf("{\"instructions\": \"%s\", \"float32\": %.1f, \"bfloat16\": ", kInstructions,
              best_gigaflops<Float32>(threads));
#if defined(__AVX512BF16__)
  std::printf("%.1f", best_gigaflops<BFloat16>(threads));
#else
  std::printf("null");
#endif
#if defined(SENET_PEAK_INT8)
  std::printf(", \"int8\": %.1f", best_gigaflops<Int8>(threads));
#else
  std::printf(", \"int8\": null");
#endif
#if defined(SENET_PEAK_AMX)
  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  if (syscall(SYS_arch_prctl, 0x1023, 18) == 0) {
    std::printf(", \"amx\": {\"bfloat16\": %.1f, \"int8\": %.1f}}\n", best_gigaflops<TilesOfBfloat16>(threads),
                best_gigaflops<TilesOfInt8>(threads));
  } else {
    std::printf(", \"amx\": \"the system refuses its use (arch_prctl: %s)\"}\n", std::strerror(errno));
  }
#else
  std::printf(", \"amx\": \"this processor has none\"}\n");
#endif
}
