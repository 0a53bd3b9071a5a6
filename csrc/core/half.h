// Half-width floats that are stored and widened, never computed with, and the choice of a kernel by
// the type of a tensor.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/inline.h"
#if !defined(__CUDACC_RTC__)  // the choice is made on the host
#include "core/error.h"
#include "core/tensor_view.h"
#endif

namespace detrx {

DETRX_HD DETRX_INLINE float float_of_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

DETRX_HD DETRX_INLINE std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct Half {
  std::uint16_t bits;
};

struct Bfloat16 {
  std::uint16_t bits;
};

DETRX_HD DETRX_INLINE float to_float(float value) { return value; }

DETRX_HD DETRX_INLINE float to_float(Bfloat16 value) {
  return float_of_bits(static_cast<std::uint32_t>(value.bits) << 16);
}

// Exact; without branches, so that loops over it become vector code.
DETRX_HD DETRX_INLINE float to_float(Half value) {
#if defined(__CUDA_ARCH__)
  float found;
  asm("cvt.f32.f16 %0, %1;" : "=f"(found) : "h"(value.bits));
  return found;
#else
  constexpr float kRebias = 5.192296858534828e33F;  // 2^112: exponents are kept 112 lower
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
  const std::uint32_t size = static_cast<std::uint32_t>(value.bits & 0x7fffU) << 13;
  const std::uint32_t finite = bits_of_float(float_of_bits(size) * kRebias);
  const std::uint32_t wide = size >= 0x0f800000U ? size | 0x7f800000U : finite;  // infinity or NaN
  return float_of_bits(wide | sign);
#endif
}

// Rounds to the nearest, ties to even, as hardware does; NaN stays NaN.
template <typename T>
DETRX_HD DETRX_INLINE T from_float(float value);

template <>
DETRX_HD DETRX_INLINE float from_float<float>(float value) {
  return value;
}

template <>
DETRX_HD DETRX_INLINE Bfloat16 from_float<Bfloat16>(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
  return {static_cast<std::uint16_t>(is_nan ? (bits >> 16) | 0x40U : rounded)};
}

template <>
DETRX_HD DETRX_INLINE Half from_float<Half>(float value) {
#if defined(__CUDA_ARCH__)
  Half found;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(found.bits) : "f"(value));
  return found;
#else
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t size = bits & 0x7fffffffU;
  std::uint32_t half;
  if (size > 0x7f800000U) {
    half = 0x7e00U;
  } else if (size >= 0x47800000U) {  // 2^16 and more
    half = 0x7c00U;
  } else if (size >= 0x38800000U) {  // normal; rounding may carry into infinity, as it should
    half = (size - 0x38000000U + 0xfffU + ((size >> 13) & 1U)) >> 13;
  } else {  // subnormal: adding 0.5 leaves the multiples of 2^-24 in the low bits, rounded
    half = bits_of_float(float_of_bits(size) + 0.5F) - 0x3f000000U;
  }
  return {static_cast<std::uint16_t>(half | ((bits >> 16) & 0x8000U))};
#endif
}

#if !defined(__CUDACC_RTC__)

// Stands for a type where a value is asked for.
template <typename T>
struct TypeOf {
  using type = T;
};

// Calls fn(TypeOf<T>{}) with the type that dtype names: float, Half or Bfloat16.
template <typename Fn>
inline decltype(auto) dispatch_float(Dtype dtype, Fn&& fn) {
  if (dtype == Dtype::bfloat16) return fn(TypeOf<Bfloat16>{});
  if (dtype == Dtype::float16) return fn(TypeOf<Half>{});
  require(dtype == Dtype::float32, "[tensor] items must be float32, float16 or bfloat16, got ",
          text(dtype));
  return fn(TypeOf<float>{});
}

#endif

}  // namespace detrx
