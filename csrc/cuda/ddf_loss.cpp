#include "cuda/ddf_loss.h"

#include <algorithm>
#include <limits>

namespace detrx::cuda {
namespace {

// Any owner that is not negative counts: which target it is makes no difference.
constexpr std::int64_t kAnyTarget = std::numeric_limits<std::int32_t>::max();

constexpr std::int64_t kMostValues = 1 << 24;

DdfLoss make_problem(const StageArguments& arguments, const AnyView<5>& edges,
                     const AnyView<2>& confidence, const AnyView<3>& owners, const AnyView<3>& iou,
                     const AnyView<2>& counts, const AnyView<4>& log_sums, float temperature) {
  const auto [stages, images, queries, sides, values] = edges.shape;
  require(sides == 4 && values >= 1 && values <= kMostValues,
          "[ddf_loss] edges must have shape (L, B, Q, 4, R + 1), R below ", kMostValues, ", got ",
          text(edges.shape));
  require(temperature > 0.0F, "[ddf_loss] temperature must be above 0, got ", temperature);
  DdfLoss p{};
  p.stages = arguments.stages(owners, {});
  p.students = std::max<std::int64_t>(stages - 1, 0);
  p.edges = arguments.memory("edges", edges, edges.shape);
  p.confidence = arguments.items<const float>("confidence", confidence, {images, queries});
  p.iou = arguments.of_queries("iou", iou);
  p.log_sums = arguments.items<float>("log_sums", log_sums, {stages, images, queries, 4});
  p.counts = arguments.items<const float>("counts", counts, {p.students, 2});
  p.values = static_cast<std::int32_t>(values);
  p.scale = 1.0F / temperature;
  p.shares = loss_parts(images, queries);
  return p;
}

}  // namespace

void ddf_loss(const AnyView<5>& edges, const AnyView<2>& confidence, const AnyView<3>& owners,
              const AnyView<3>& iou, const AnyView<2>& counts, float temperature,
              const AnyView<1>& sums, const AnyView<4>& log_sums, const AnyView<3>& parts,
              std::int64_t stream) {
  const StageArguments arguments("ddf_loss", edges, kAnyTarget);
  DdfLoss p =
      make_problem(arguments, edges, confidence, owners, iou, counts, log_sums, temperature);
  p.stages.stages = p.students;
  p.sums = arguments.items<float>("sums", sums, {p.students});
  p.parts = arguments.share(parts);
  dispatch_float(edges.dtype, [&](auto type) {
    launch_ddf_loss<typename decltype(type)::type>(p, false, stream_of(stream));
  });
  launch_ddf_sums(p, stream_of(stream));
}

void ddf_loss_backward(const AnyView<1>& grad, const AnyView<5>& edges,
                       const AnyView<2>& confidence, const AnyView<3>& owners,
                       const AnyView<3>& iou, const AnyView<2>& counts, float temperature,
                       const AnyView<4>& log_sums, const AnyView<5>& grad_edges,
                       std::int64_t stream) {
  const StageArguments arguments("ddf_loss_backward", edges, kAnyTarget);
  DdfLoss p =
      make_problem(arguments, edges, confidence, owners, iou, counts, log_sums, temperature);
  p.grad = arguments.items<const float>("grad", grad, {p.students});
  dispatch_float(edges.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    p.grad_edges = arguments.items<T>("grad_edges", grad_edges, edges.shape);
    launch_ddf_loss<T>(p, true, stream_of(stream));
  });
}

}  // namespace detrx::cuda
