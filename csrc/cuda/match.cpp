#include "cuda/match.h"

#include <limits>

#include "cuda/arguments.h"
#include "cuda/assign.h"
#include "cuda/cost_table.h"

namespace detrx::cuda {

void match(const AnyView<4>& logits, const AnyView<4>& boxes, const AnyView<2>& labels,
           const AnyView<3>& truths, const AnyView<1>& counts, const CostWeights& weights,
           const AnyView<3>& cost, const AnyView<2>& match, const AnyView<1>& bad,
           const AnyView<1>& workspace, std::int64_t stream) {
  const auto [layers, images, queries, classes] = logits.shape;
  const std::int64_t targets = labels.shape[1];
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 32;
  require(targets <= kMost && classes <= kMost, "[match] at most 2^26 targets and classes, got ",
          targets, " and ", classes);
  require(boxes.dtype == logits.dtype, "[match] boxes must be ", text(logits.dtype),
          " as logits are, got ", text(boxes.dtype));
  const Arguments arguments("match", logits.device_index);
  CostTable p{};
  p.layers = layers;
  p.images = images;
  p.queries = queries;
  p.targets = static_cast<std::int32_t>(targets);
  p.classes = static_cast<std::int32_t>(classes);
  p.logits = arguments.memory("logits", logits, logits.shape);
  p.boxes = arguments.memory("boxes", boxes, {layers, images, queries, 4});
  p.labels = arguments.items<const std::int64_t>("labels", labels, {images, targets});
  p.truths = arguments.items<const float>("truths", truths, {images, targets, 4});
  p.counts = arguments.items<const std::int32_t>("counts", counts, {images});
  p.weights = weights;
  p.cost = arguments.items<float>("cost", cost, {layers * images, targets, queries});
  dispatch_float(logits.dtype, [&](auto type) {
    launch_cost_table<typename decltype(type)::type>(p, stream_of(stream));
  });
  assign(cost, counts, match, bad, workspace, stream);
}

}  // namespace detrx::cuda
