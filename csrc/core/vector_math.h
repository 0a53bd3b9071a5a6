// Exponential and logarithm on vectors, for the bodies that core/inline.h compiles for several
// instruction sets. Everything is passed by reference: vectors wider than the machine's registers
// have no calling convention.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/exponential.h"
#include "core/half.h"
#include "core/inline.h"
#include "core/lanes.h"

namespace detrx {

// Count floats at a time: 16 in a DETRX_AVX512 entry, 8 in a DETRX_AVX2 entry, 4 elsewhere.
template <int Count>
struct FloatLanes {
  static constexpr int kCount = Count;
  typedef float Floats __attribute__((vector_size(4 * Count)));
  typedef std::uint32_t Words __attribute__((vector_size(4 * Count)));
  typedef std::uint16_t Shorts __attribute__((vector_size(2 * Count)));
};

template <typename Lanes>
DETRX_INLINE void load_floats(const float* from, typename Lanes::Floats& to) {
  std::memcpy(&to, from, sizeof to);
}

template <typename Lanes>
DETRX_INLINE void load_floats(const Bfloat16* from, typename Lanes::Floats& to) {
  typename Lanes::Shorts narrow;
  std::memcpy(&narrow, from, sizeof narrow);
  const auto bits = __builtin_convertvector(narrow, typename Lanes::Words) << 16;
  std::memcpy(&to, &bits, sizeof to);
}

// As to_float(Half) does it.
template <typename Lanes>
DETRX_INLINE void load_floats(const Half* from, typename Lanes::Floats& to) {
  using Words = typename Lanes::Words;
  typename Lanes::Shorts narrow;
  std::memcpy(&narrow, from, sizeof narrow);
  const Words wide = __builtin_convertvector(narrow, Words);
  const Words size = (wide & 0x7fffU) << 13;
  typename Lanes::Floats scaled;
  std::memcpy(&scaled, &size, sizeof scaled);
  scaled *= 5.192296858534828e33F;  // 2^112
  Words finite;
  std::memcpy(&finite, &scaled, sizeof finite);
  const Words bits = (size >= 0x0f800000U ? size | 0x7f800000U : finite) | ((wide & 0x8000U) << 16);
  std::memcpy(&to, &bits, sizeof to);
}

template <typename Lanes>
DETRX_INLINE void store_floats(const typename Lanes::Floats& from, float* to) {
  std::memcpy(to, &from, sizeof from);
}

// As from_float<Bfloat16> does it.
template <typename Lanes>
DETRX_INLINE void store_floats(const typename Lanes::Floats& from, Bfloat16* to) {
  using Words = typename Lanes::Words;
  Words bits;
  std::memcpy(&bits, &from, sizeof bits);
  const Words rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const Words chosen = (bits & 0x7fffffffU) > 0x7f800000U ? (bits >> 16) | 0x40U : rounded;
  const auto narrow = __builtin_convertvector(chosen, typename Lanes::Shorts);
  std::memcpy(to, &narrow, sizeof narrow);
}

// As from_float<Half> does it.
template <typename Lanes>
DETRX_INLINE void store_floats(const typename Lanes::Floats& from, Half* to) {
  using Words = typename Lanes::Words;
  using Floats = typename Lanes::Floats;
  Words bits;
  std::memcpy(&bits, &from, sizeof bits);
  const Words size = bits & 0x7fffffffU;
  Floats small;
  std::memcpy(&small, &size, sizeof small);
  small += 0.5F;
  Words subnormal;
  std::memcpy(&subnormal, &small, sizeof subnormal);
  const Words normal = (size - 0x38000000U + 0xfffU + ((size >> 13) & 1U)) >> 13;
  Words chosen = size < 0x38800000U ? subnormal - 0x3f000000U : normal;
  chosen = size >= 0x47800000U ? Words{} + 0x7c00U : chosen;
  chosen = size > 0x7f800000U ? Words{} + 0x7e00U : chosen;
  chosen |= (bits >> 16) & 0x8000U;
  const auto narrow = __builtin_convertvector(chosen, typename Lanes::Shorts);
  std::memcpy(to, &narrow, sizeof narrow);
}

// The first `count` < Lanes::kCount items, the other lanes at fill.
template <typename Lanes, typename Item>
DETRX_INLINE void load_some(const Item* from, std::int64_t count, float fill,
                            typename Lanes::Floats& to) {
  to = typename Lanes::Floats{} + fill;
  for (std::int64_t lane = 0; lane < count; ++lane) to[lane] = to_float(from[lane]);
}

// As load_some. `room` >= count items may be read: where they fill the lanes that is faster.
template <typename Lanes, typename Item>
DETRX_INLINE void load_within(const Item* from, std::int64_t count, std::int64_t room, float fill,
                              typename Lanes::Floats& to) {
  if (room < Lanes::kCount) {
    load_some<Lanes>(from, count, fill, to);
    return;
  }
  using Words = typename Lanes::Words;
  Words number;
  for (std::uint32_t lane = 0; lane < Lanes::kCount; ++lane) number[lane] = lane;
  typename Lanes::Floats all;
  load_floats<Lanes>(from, all);
  to = number < static_cast<std::uint32_t>(count) ? all : typename Lanes::Floats{} + fill;
}

template <typename Lanes, typename Item>
DETRX_INLINE void store_some(const typename Lanes::Floats& from, std::int64_t count, Item* to) {
  for (std::int64_t lane = 0; lane < count; ++lane) to[lane] = from_float<Item>(from[lane]);
}

template <typename Lanes>
DETRX_INLINE float greatest_lane(const typename Lanes::Floats& x) {
  float most[Lanes::kCount];
  std::memcpy(most, &x, sizeof most);
  for (int half = Lanes::kCount / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) most[i] = most[i] > most[i + half] ? most[i] : most[i + half];
  }
  return most[0];
}

template <typename Lanes>
DETRX_INLINE float sum_lanes(const typename Lanes::Floats& x) {
  float sums[Lanes::kCount];
  std::memcpy(sums, &x, sizeof sums);
  for (int half = Lanes::kCount / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// The same of vectors that go by reference.
template <typename Lanes>
DETRX_INLINE void exp_of_nonpositive(const typename Lanes::Floats& x,
                                     typename Lanes::Floats& result) {
  result = exp_below_88(x);
}

// The sigmoid of x, and log1p(e^-|x|), each to 4e-7 of itself: softplus(x) = log(1 + e^x), which is
// -log(1 - sigmoid(x)), is that plus x where x is positive, and log(sigmoid(x)) is x where x is
// negative less that. NaN stays NaN.
template <typename Lanes>
DETRX_INLINE void sigmoid_log1p(const typename Lanes::Floats& x, typename Lanes::Floats& sigmoid,
                                typename Lanes::Floats& log1p) {
  using Floats = typename Lanes::Floats;
  using Words = typename Lanes::Words;
  Words bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits |= 0x80000000U;
  Floats far;  // -|x|
  std::memcpy(&far, &bits, sizeof far);
  Floats e;
  exp_of_nonpositive<Lanes>(far, e);
  // One division serves both 1 / (1 + e) and u = e / (2 + e); log(1 + e) = 2 atanh(u).
  const Floats one = 1.0F + e, two = 2.0F + e;
  const Floats inverse = 1.0F / (one * two);
  const Floats large = two * inverse, u = e * one * inverse;
  const Floats square = u * u;
  // Minimax on u in [0, 1/3]: 4e-9.
  Floats series = square * 2.8192249e-1F + 2.7957529e-1F;
  series = series * square + 4.0025124e-1F;
  series = series * square + 6.6666311e-1F;
  series = series * square + 2.0F;
  log1p = series * u;
  sigmoid = x < 0 ? e * large : large;
}

template <typename Lanes>
DETRX_INLINE void sigmoid_softplus(const typename Lanes::Floats& x, typename Lanes::Floats& sigmoid,
                                   typename Lanes::Floats& softplus) {
  sigmoid_log1p<Lanes>(x, sigmoid, softplus);
  softplus += x < 0 ? typename Lanes::Floats{} : x;
}

// Multiplies count >= Wide::kCount items where they lie.
template <typename Wide>
DETRX_INLINE void multiply(float* x, std::int64_t count, float by) {
  using Floats = typename Wide::Floats;
  const std::int64_t last = count - Wide::kCount;
  const Floats end = load<Floats>(x + last) * by;
  for (std::int64_t i = 0; i < last; i += Wide::kCount) store(load<Floats>(x + i) * by, x + i);
  store(end, x + last);
}

// A body, which is a class with an inlined template run<Lanes>(args...), compiled once for each
// instruction set.
template <typename Body, typename Result, typename... Args>
struct Entries {
  using Entry = Result (*)(Args...);
#if DETRX_X86
  static DETRX_AVX512 Result wide(Args... args) {
    return Body::template run<FloatLanes<16>>(args...);
  }
  static DETRX_AVX2 Result middle(Args... args) {
    return Body::template run<FloatLanes<8>>(args...);
  }
#endif
  static Result plain(Args... args) { return Body::template run<FloatLanes<4>>(args...); }

  // The one for this machine.
  static Entry best() {
#if DETRX_X86
    if (has_avx512()) return wide;
    if (has_avx2()) return middle;
#endif
    return plain;
  }
};

}  // namespace detrx
