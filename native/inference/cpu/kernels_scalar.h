// The vector types of kernels_simd.h for any processor: the compiler's own, of whatever instructions it may
// use. Included, as that is, in the anonymous namespace of the sources that are compiled without flags, after
// <math.h>.

#include "inference/cpu/kernels_bfloat16.h"

struct ScalarFloat {
  using Element = float;
  using Vector = float __attribute__((vector_size(64), aligned(4)));
  using Doubles = double __attribute__((vector_size(64), aligned(8)));
  using Ints = int32_t __attribute__((vector_size(64), aligned(4)));
  using Lanes = Ints;
  static constexpr int kWidth = 16;
  static constexpr int kGroup = 1;
  static constexpr int kMaxVectors = 2;
  static constexpr int kRowPixels = 2;

  static constexpr int block_pixels(int) {
    return 2;
  }
  template <class To, class From, class Change>
  static To each(const From& from, const Change& change) {
    To result;
    for (int i = 0; i < static_cast<int>(sizeof(result) / sizeof(result[0])); ++i) {
      result[i] = change(from, i);
    }
    return result;
  }
  template <class To, class From>
  static To load_as(const From* from) {
    return each<To>(from, [](const From* x, int i) { return x[i]; });
  }

  static Vector zero() {
    return Vector{};
  }
  static Vector broadcast(float x) {
    return Vector{} + x;
  }
  static Vector load(const float* from) {
    return load_as<Vector>(from);
  }
  static void store(float* to, Vector x) {
    __builtin_memcpy(to, &x, sizeof(x));
  }
  static Vector load_elements(const Element* from) {
    return load(from);
  }
  static void store_elements(Element* to, Vector x) {
    store(to, x);
  }
  static Element to_element(float x) {
    return x;
  }
  static Vector add(Vector x, Vector y) {
    return x + y;
  }
  static Vector subtract(Vector x, Vector y) {
    return x - y;
  }
  static Vector multiply(Vector x, Vector y) {
    return x * y;
  }
  // A NaN of either stays one, as in PyTorch.
  static Vector max(Vector x, Vector y) {
    return each<Vector>(
        x, [&](const Vector& of, int i) { return of[i] > y[i] || of[i] != of[i] ? of[i] : y[i]; });
  }
  static Vector relu(Vector x) {
    return each<Vector>(x, [](const Vector& of, int i) { return of[i] < 0.0f ? 0.0f : of[i]; });
  }
  static Doubles low(Vector x) {
    return each<Doubles>(x, [](const Vector& of, int i) { return static_cast<double>(of[i]); });
  }
  static Doubles high(Vector x) {
    return each<Doubles>(x, [](const Vector& of, int i) { return static_cast<double>(of[i + kWidth / 2]); });
  }
  static Vector broadcast_group(const Element* from) {
    return broadcast(*from);
  }
  static Vector load_groups(const Element* from) {
    return load(from);
  }
  static Lanes load_lanes(const int32_t* from) {
    return load_as<Lanes>(from);
  }
  static Lanes advance(Lanes lanes, int32_t by) {
    return lanes + by;
  }
  static Vector shuffle(Vector x, Lanes lanes) {
    return each<Vector>(x, [&](const Vector& of, int i) { return of[lanes[i]]; });
  }
  static Vector multiply_add(Vector weights, Vector window, Vector sum) {
    return weights * window + sum;
  }

  static Vector fused(Vector x, Vector y, Vector z) {
    return each<Vector>(x, [&](const Vector& of, int i) { return fmaf(of[i], y[i], z[i]); });
  }
  static Vector at_least(Vector x, Vector least) {
    return each<Vector>(x, [&](const Vector& of, int i) { return of[i] > least[i] ? of[i] : least[i]; });
  }
  static Ints load_ints(const int32_t* from) {
    return load_as<Ints>(from);
  }
  static Ints zero_ints() {
    return Ints{};
  }
  static Ints broadcast_int(int32_t x) {
    return Ints{} + x;
  }
  static Ints load_bytes(const uint8_t* from) {
    return load_as<Ints>(from);
  }
  static void store_bytes(uint8_t* to, Ints x) {
    for (int i = 0; i < kWidth; ++i) {
      to[i] = static_cast<uint8_t>(x[i]);
    }
  }
  static Vector to_floats(Ints x) {
    return each<Vector>(x, [](const Ints& of, int i) { return static_cast<float>(of[i]); });
  }
  static Ints to_bytes(Vector x) {
    return each<Ints>(x, [](const Vector& of, int i) {
      return of[i] < 255.0f ? static_cast<int32_t>(nearbyintf(of[i])) : 255;
    });
  }
  static Ints add_ints(Ints x, Ints y) {
    return x + y;
  }
  static Ints max_ints(Ints x, Ints y) {
    return each<Ints>(x, [&](const Ints& of, int i) { return of[i] > y[i] ? of[i] : y[i]; });
  }
  static Doubles low_ints(Ints x) {
    return each<Doubles>(x, [](const Ints& of, int i) { return static_cast<double>(of[i]); });
  }
  static Doubles high_ints(Ints x) {
    return each<Doubles>(x, [](const Ints& of, int i) { return static_cast<double>(of[i + kWidth / 2]); });
  }

  static const int8_t* load_weights(const int8_t* from) {
    return from;
  }
  static const uint8_t* broadcast_bytes(const uint8_t* from) {
    return from;
  }
  static Ints dot(Ints sum, const int8_t* weights, const uint8_t* window) {
    return each<Ints>(sum, [&](const Ints& of, int i) {
      int32_t total = of[i];
      for (int k = 0; k < 4; ++k) {
        total += static_cast<int32_t>(weights[4 * i + k]) * static_cast<int32_t>(window[k]);
      }
      return total;
    });
  }
};

// Elements are the upper halves of floats. Each 32 bits of weights and window hold two of them.
struct ScalarBfloat16 : ScalarFloat {
  using Element = uint16_t;
  static constexpr int kGroup = 2;

  static float to_float(uint32_t element) {
    const uint32_t bits = element << 16;
    float result;
    __builtin_memcpy(&result, &bits, sizeof(result));
    return result;
  }
  // The lower and the upper half of a float's bits.
  static float half(float pair, int number) {
    uint32_t bits;
    __builtin_memcpy(&bits, &pair, sizeof(bits));
    return to_float(number == 0 ? bits & 0xffff : bits >> 16);
  }
  static Vector load_elements(const Element* from) {
    return each<Vector>(from, [](const Element* x, int i) { return to_float(x[i]); });
  }
  static void store_elements(Element* to, Vector x) {
    for (int i = 0; i < kWidth; ++i) {
      to[i] = to_element(x[i]);
    }
  }
  static Element to_element(float x) {
    return round_to_bfloat16(x);
  }
  static Vector broadcast_group(const Element* from) {
    float pair;
    __builtin_memcpy(&pair, from, sizeof(pair));
    return broadcast_bits(pair);
  }
  static Vector load_groups(const Element* from) {
    Vector result;
    __builtin_memcpy(&result, from, sizeof(result));
    return result;
  }
  static Vector multiply_add(Vector weights, Vector window, Vector sum) {
    return each<Vector>(sum, [&](const Vector& of, int i) {
      const float odd = of[i] + half(weights[i], 1) * half(window[i], 1);
      return odd + half(weights[i], 0) * half(window[i], 0);
    });
  }

 private:
  // No arithmetic: the bits of a pair may be those of a NaN.
  static Vector broadcast_bits(float pair) {
    return each<Vector>(pair, [](float of, int) { return of; });
  }
};
