// From logits and boxes to the best objects of each image on the GPU, as cpu/decode.h.
#pragma once

#include <cstdint>

#include "cuda/decoding.h"

namespace detrx::cuda {

// The bytes of device memory that decode works in; they may be 0.
std::int64_t decode_workspace(std::int64_t images, std::int64_t queries, Decoding decoding);

// Whether so many answers can be had: at most 2048, of Q * C pairs or Q queries.
bool can_decode(std::int64_t queries, std::int64_t columns, std::int64_t top, Decoding decoding);

// Enqueues the work on the stream and does not wait. The problem's pointers are of device memory
// that is not checked; workspace is as large as decode_workspace says. What a plugin calls.
template <typename T>
void decode(DecodeProblem problem, void* workspace, Stream stream);

extern template void decode<float>(DecodeProblem, void*, Stream);
extern template void decode<Half>(DecodeProblem, void*, Stream);
extern template void decode<Bfloat16>(DecodeProblem, void*, Stream);

// The same for tensors, which are checked: labels (B, K) are int32 or int64, workspace uint8.
void decode(const AnyView<3>& logits, const AnyView<3>& boxes, Decoding decoding,
            const AnyView<2>& scores, const AnyView<2>& labels, const AnyView<3>& corners,
            const AnyView<1>& workspace, std::int64_t stream);

}  // namespace detrx::cuda
