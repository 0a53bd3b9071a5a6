// Layer normalisation over the last axis on the GPU.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor_view.h"
#include "cuda/normalising.h"

namespace detrx::cuda {

// Writes (y - mean(y)) / sqrt(variance(y) + epsilon) * gain + bias of each row y = x + residual, in
// float32 whatever the type. Does not wait; memory is the device's and not checked.
void layer_norm(const LayerNormProblem& problem, Dtype dtype, Stream stream);

// The same for tensors, which are checked: residual and out are as x, gain and bias float32.
void layer_norm(const AnyView<2>& x, const std::optional<AnyView<2>>& residual,
                const AnyView<1>& gain, const AnyView<1>& bias, float epsilon,
                const AnyView<2>& out, std::int64_t stream);

}  // namespace detrx::cuda
