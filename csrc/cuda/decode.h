// From logits and boxes to the best objects of each image on the GPU, as cpu/decode.h.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/decoding.h"

namespace detrx::cuda {

// The bytes of device memory that decode works in; they may be 0.
std::int64_t decode_workspace(std::int64_t images, std::int64_t queries, Decoding decoding);

// Gives each class of Decoding::queries its column of the logits. Throws where there are too many.
void name_columns(DecodeProblem& problem, const std::vector<std::int32_t>& columns);

// Whether so many answers can be had: at most 2048, of Q * C pairs or Q queries.
bool can_decode(std::int64_t queries, std::int64_t columns, std::int64_t top, Decoding decoding);

// Enqueues the work on the stream and does not wait. The problem's pointers are of device memory
// that is not checked; workspace is as large as decode_workspace says. What a plugin calls.
template <typename T>
void decode(DecodeProblem problem, void* workspace, Stream stream);

extern template void decode<float>(DecodeProblem, void*, Stream);
extern template void decode<Half>(DecodeProblem, void*, Stream);
extern template void decode<Bfloat16>(DecodeProblem, void*, Stream);

// The same for tensors, which are checked, as the node DetrxDecode has it: `each` is whether a
// query answers once, columns are those of the classes or none; labels and queries (B, K) are
// int32.
void decode_node(const AnyView<3>& logits, const AnyView<3>& boxes, bool each, bool no_object,
                 const std::vector<std::int32_t>& columns, const AnyView<2>& scores,
                 const AnyView<2>& labels, const AnyView<3>& corners, const AnyView<2>& queries,
                 const AnyView<1>& workspace, std::int64_t stream);

// The same for tensors, which are checked: labels (B, K) are int32 or int64, workspace uint8.
void decode(const AnyView<3>& logits, const AnyView<3>& boxes, Decoding decoding,
            const AnyView<2>& scores, const AnyView<2>& labels, const AnyView<3>& corners,
            const AnyView<1>& workspace, std::int64_t stream);

}  // namespace detrx::cuda
