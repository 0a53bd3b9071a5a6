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

namespace {

// What both forms below are given.
DecodeProblem make_problem(const Arguments& arguments, const AnyView<3>& logits,
                           const AnyView<3>& boxes, Decoding decoding, const AnyView<2>& scores,
                           const AnyView<2>& labels, const AnyView<3>& corners) {
  const std::int64_t images = logits.shape[0], queries = logits.shape[1], top = scores.shape[1];
  require(can_decode(queries, logits.shape[2], top, decoding), "[decode] of logits ",
          text(logits.shape), " so many cannot be answered: ", top);
  require(boxes.dtype == logits.dtype, "[decode] boxes must be ", text(logits.dtype), ", got ",
          text(boxes.dtype));
  require(labels.dtype == Dtype::int32 || labels.dtype == Dtype::int64,
          "[decode] labels must be int32 or int64, got ", text(labels.dtype));
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
  return p;
}

void run(const Arguments& arguments, const DecodeProblem& p, Dtype dtype,
         const AnyView<1>& workspace, std::int64_t stream) {
  const std::int64_t bytes = decode_workspace(p.images, p.queries, p.decoding);
  void* const room = arguments.items<unsigned char>("workspace", workspace, {bytes});
  dispatch_float(
      dtype, [&](auto type) { decode<typename decltype(type)::type>(p, room, stream_of(stream)); });
}

}  // namespace

void name_columns(DecodeProblem& problem, const std::vector<std::int32_t>& columns) {
  require(columns.size() <= kMostClasses, "[decode] at most ", kMostClasses,
          " classes have columns of their own, got ", columns.size());
  for (std::size_t i = 0; i < columns.size(); ++i) {
    require(columns[i] >= 0 && columns[i] < problem.columns && columns[i] <= 0xffff,
            "[decode] column ", columns[i], " is none of ", problem.columns);
    problem.column[i] = static_cast<std::uint16_t>(columns[i]);
  }
  problem.classes = static_cast<std::int32_t>(columns.size());
}

void decode_node(const AnyView<3>& logits, const AnyView<3>& boxes, bool each, bool no_object,
                 const std::vector<std::int32_t>& columns, const AnyView<2>& scores,
                 const AnyView<2>& labels, const AnyView<3>& corners, const AnyView<2>& queries,
                 const AnyView<1>& workspace, std::int64_t stream) {
  require(each || (!no_object && columns.empty()),
          "[decode] only queries that answer once have no_object or columns");
  const Arguments arguments("decode", logits.device_index);
  DecodeProblem p =
      make_problem(arguments, logits, boxes, each ? Decoding::queries : Decoding::pairs, scores,
                   labels, corners);
  p.sigmoid = !no_object;
  p.chosen = arguments.items<std::int32_t>("queries", queries, scores.shape);
  name_columns(p, columns);
  run(arguments, p, logits.dtype, workspace, stream);
}

void decode(const AnyView<3>& logits, const AnyView<3>& boxes, Decoding decoding,
            const AnyView<2>& scores, const AnyView<2>& labels, const AnyView<3>& corners,
            const AnyView<1>& workspace, std::int64_t stream) {
  const Arguments arguments("decode", logits.device_index);
  const DecodeProblem p = make_problem(arguments, logits, boxes, decoding, scores, labels, corners);
  run(arguments, p, logits.dtype, workspace, stream);
}

}  // namespace detrx::cuda
