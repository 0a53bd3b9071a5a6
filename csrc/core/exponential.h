// The exponential, written once for one float (also of a CUDA kernel) and for vectors of them.
#pragma once

#include "core/inline.h"
#include "core/lanes.h"

namespace detrx {

// e^x for x <= 88: a relative error below 1.5e-7, and never below e^-87; NaN stays NaN.
template <typename F>
DETRX_HD DETRX_INLINE F exp_below_88(F x) {
  using Bits = typename BitsOf<F>::type;
  constexpr float kLog2e = 1.44269504F, kLn2High = 0.693145752F, kLn2Low = 1.42860677e-6F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: a sum with it is rounded to a whole number
  x = most(F{} - 87.0F, x);
  const F shifted = x * kLog2e + kRound;
  const F whole = shifted - kRound;
  const F part = (x - whole * kLn2High) - whole * kLn2Low;  // within ln 2 / 2 of 0
  F sum = part * 1.39421599e-3F + 8.37596823e-3F;
  sum = sum * part + 4.16663401e-2F;
  sum = sum * part + 1.66664053e-1F;
  sum = sum * part + 0.500000005F;
  sum = sum * part + 1.00000004F;
  sum = sum * part + 1.0F;
  return sum * bits_as<F>((bits_as<Bits>(shifted) + 127) << 23);
}

}  // namespace detrx
