// Copies between the float types, by the conversions that all kernels share.
#pragma once

#include "core/tensor_view.h"

namespace detrx::cpu {

// Writes the items of from (N,) to `to` (N,), widened or rounded to the nearest, ties to even. Each
// is float32, float16 or bfloat16.
void convert(const AnyView<1>& from, const AnyView<1>& to);

}  // namespace detrx::cpu
