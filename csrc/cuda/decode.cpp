#include "cuda/decode.h"

#include "cuda/arguments.h"

namespace detrx::cuda {

std::int64_t decode_workspace(std::int64_t images, std::int64_t queries, Decoding decoding) {
  constexpr auto kEach = static_cast<std::int64_t>(sizeof(float) + sizeof(std::int32_t));
  return decoding == Decoding::queries ? images * queries * kEach : 0;
}

bool can_decode(std::int64_t queries, std::int64_t columns, std::int64_t top, Decoding decoding) {
  const bool pairs = decoding == Decoding::pairs;
  const std::int64_t candidates = pairs ? queries * columns : queries;
  return candidates <= 0x7fffffff && top >= 0 && top <= candidates && top <= kMostAnswers &&
         (pairs || columns > 1);
}

template <typename T>
void decode(DecodeProblem problem, void* workspace, Stream stream) {
  problem.best = static_cast<float*>(workspace);
  problem.best_label =
      reinterpret_cast<std::int32_t*>(problem.best + problem.images * problem.queries);
  if (problem.top > 0) launch_decode<T>(problem, stream);
}

template void decode<float>(DecodeProblem, void*, Stream);
template void decode<Half>(DecodeProblem, void*, Stream);
template void decode<Bfloat16>(DecodeProblem, void*, Stream);

void decode(const AnyView<3>& logits, const AnyView<3>& boxes, Decoding decoding,
            const AnyView<2>& scores, const AnyView<2>& labels, const AnyView<3>& corners,
            const AnyView<1>& workspace, std::int64_t stream) {
  const std::int64_t images = logits.shape[0], queries = logits.shape[1], top = scores.shape[1];
  require(can_decode(queries, logits.shape[2], top, decoding), "[decode] of logits ",
          text(logits.shape), " so many cannot be answered: ", top);
  require(boxes.dtype == logits.dtype, "[decode] boxes must be ", text(logits.dtype), ", got ",
          text(boxes.dtype));
  require(labels.dtype == Dtype::int32 || labels.dtype == Dtype::int64,
          "[decode] labels must be int32 or int64, got ", text(labels.dtype));
  const Arguments arguments("decode", logits.device_index);
  DecodeProblem p{};
  p.logits = arguments.memory("logits", logits, logits.shape);
  p.boxes = arguments.memory("boxes", boxes, {images, queries, 4});
  p.scores = arguments.items<float>("scores", scores, {images, top});
  p.labels = arguments.memory("labels", labels, {images, top});
  p.corners = arguments.items<float>("corners", corners, {images, top, 4});
  p.images = images;
  p.queries = queries;
  p.columns = logits.shape[2];
  p.top = top;
  p.decoding = decoding;
  p.wide_labels = labels.dtype == Dtype::int64;
  void* const room = arguments.items<unsigned char>("workspace", workspace,
                                                    {decode_workspace(images, queries, decoding)});
  dispatch_float(logits.dtype, [&](auto type) {
    decode<typename decltype(type)::type>(p, room, stream_of(stream));
  });
}

}  // namespace detrx::cuda
