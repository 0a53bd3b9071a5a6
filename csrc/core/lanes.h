// Vectors of the compiler's own kind, so that a kernel is written once for every width. They go by
// value only into functions that are inlined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/inline.h"

namespace detrx {

#if !defined(__CUDACC_RTC__)  // NVRTC knows no vectors
// What an instruction set computes at once: Count floats, or half as many doubles. Vectors must
// have the size that the machine has; wider ones are taken apart by compilers, item by item.
template <int Count>
struct Lanes {
  static constexpr int kCount = Count;
  typedef float Floats __attribute__((vector_size(4 * Count)));
  typedef std::int32_t Ints __attribute__((vector_size(4 * Count)));

  static constexpr int kDoubles = Count / 2;
  typedef double Doubles __attribute__((vector_size(4 * Count)));
  typedef std::int64_t Longs __attribute__((vector_size(4 * Count)));
  typedef float HalfFloats __attribute__((vector_size(2 * Count)));
};

using PlainLanes = Lanes<4>;    // SSE2, NEON
using Avx2Lanes = Lanes<8>;     // DETRX_AVX2
using Avx512Lanes = Lanes<16>;  // DETRX_AVX512

// The widest of the above: what rows are padded to.
constexpr std::int64_t kMostLanes = 16;

constexpr std::int64_t padded(std::int64_t count) {
  return (count + kMostLanes - 1) / kMostLanes * kMostLanes;
}
#endif

// The integers that comparisons of an F answer with, and that its bits fit in.
template <typename F>
struct BitsOf {
  using type = decltype(F{} < F{});
};
template <>
struct BitsOf<float> {
  using type = std::uint32_t;
};

template <typename To, typename From>
DETRX_HD DETRX_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits are kept");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

// Vectors move between registers and memory of any alignment.
template <typename Vector, typename Item>
DETRX_INLINE Vector load(const Item* from) {
  Vector to;
  std::memcpy(&to, from, sizeof(Vector));
  return to;
}
template <typename Vector, typename Item>
DETRX_INLINE void store(Vector from, Item* to) {
  std::memcpy(to, &from, sizeof(Vector));
}

template <typename F>
DETRX_HD DETRX_INLINE F least(F a, F b) {
  return a < b ? a : b;
}
template <typename F>
DETRX_HD DETRX_INLINE F most(F a, F b) {
  return a > b ? a : b;
}

#if !defined(__CUDACC_RTC__)
// 0, 1, 2, ...
template <typename Vector>
DETRX_INLINE Vector counting() {
  constexpr int kCount = sizeof(Vector) / sizeof(Vector{}[0]);
  Vector lanes{};
  for (int lane = 0; lane < kCount; ++lane) lanes[lane] = lane;
  return lanes;
}

// The lanes turned round by a number that the compiler knows.
template <int By, typename Vector>
DETRX_INLINE Vector turned(Vector vector) {
  constexpr int kCount = sizeof(Vector) / sizeof(Vector{}[0]);
#if defined(__clang__)
  Vector out;
  for (int lane = 0; lane < kCount; ++lane) out[lane] = vector[(lane + By) % kCount];
  return out;
#else
  using Bits = decltype(vector < vector);
  return __builtin_shuffle(vector, (counting<Bits>() + By) % kCount);
#endif
}

// Swaps the rows and the columns of a square.
DETRX_INLINE void transpose(PlainLanes::Floats (&square)[4]) {
#if defined(__clang__)
  PlainLanes::Floats turned[4];
  for (int row = 0; row < 4; ++row) {
    for (int column = 0; column < 4; ++column) turned[column][row] = square[row][column];
  }
  for (int row = 0; row < 4; ++row) square[row] = turned[row];
#else
  constexpr PlainLanes::Ints kLow = {0, 4, 1, 5}, kHigh = {2, 6, 3, 7};
  const auto even_low = __builtin_shuffle(square[0], square[2], kLow);
  const auto even_high = __builtin_shuffle(square[0], square[2], kHigh);
  const auto odd_low = __builtin_shuffle(square[1], square[3], kLow);
  const auto odd_high = __builtin_shuffle(square[1], square[3], kHigh);
  square[0] = __builtin_shuffle(even_low, odd_low, kLow);
  square[1] = __builtin_shuffle(even_low, odd_low, kHigh);
  square[2] = __builtin_shuffle(even_high, odd_high, kLow);
  square[3] = __builtin_shuffle(even_high, odd_high, kHigh);
#endif
}

// A value and where it stands; of each lane, or of all.
template <typename Value, typename Place>
struct Found {
  Value value;
  Place place;
};

// The least of all lanes, in every lane.
template <typename Vector, int Apart = sizeof(Vector) / sizeof(Vector{}[0]) / 2>
DETRX_INLINE Vector least_lane(Vector vector) {
  if constexpr (Apart > 0) {
    return least_lane<Vector, Apart / 2>(least(vector, turned<Apart>(vector)));
  } else {
    return vector;
  }
}

// The least of all lanes and its place; the lowest place among equals.
template <typename Values, typename Places>
DETRX_INLINE auto lowest(const Found<Values, Places>& lanes) {
  using Place = std::decay_t<decltype(lanes.place[0])>;
  const Values value = least_lane(lanes.value);
  const Places other = Places{} + std::numeric_limits<Place>::max();
  const Places place = least_lane(lanes.value == value ? lanes.place : other);
  return Found<std::decay_t<decltype(value[0])>, Place>{value[0], place[0]};
}

#endif

}  // namespace detrx
