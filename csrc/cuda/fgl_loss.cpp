#include "cuda/fgl_loss.h"

#include <cmath>

namespace detrx::cuda {
namespace {

constexpr std::int64_t kMostValues = 8192;  // what the shared memory of a block holds

FglLoss make_problem(const StageArguments& arguments, const AnyView<5>& edges,
                     const AnyView<4>& references, const AnyView<3>& truths,
                     const AnyView<3>& owners, const AnyView<3>& iou, float reg_scale, float up,
                     const Normaliser& normaliser) {
  const auto [stages, images, queries, sides, values] = edges.shape;
  require(sides == 4 && values >= 5 && values % 2 == 1 && values <= kMostValues,
          "[fgl_loss] edges must have shape (L, B, Q, 4, R + 1), R even and in [4, ", kMostValues,
          "), got ", text(edges.shape));
  FglLoss p{};
  p.stages = arguments.stages(owners, normaliser);
  p.edges = arguments.memory("edges", edges, edges.shape);
  p.references =
      arguments.items<const float>("references", references, {stages, images, queries, 4});
  p.truths = arguments.truths(truths);
  p.iou = arguments.of_queries("iou", iou);
  p.bins = static_cast<std::int32_t>(values) - 1;
  p.reg_scale = reg_scale;
  p.bound = std::fabs(up * reg_scale);
  return p;
}

}  // namespace

void fgl_loss(const AnyView<5>& edges, const AnyView<4>& references, const AnyView<3>& truths,
              const AnyView<3>& owners, const AnyView<3>& iou, float reg_scale, float up,
              const Normaliser& normaliser, const AnyView<1>& sums, const AnyView<3>& parts,
              std::int64_t stream) {
  const StageArguments arguments("fgl_loss", edges, truths.shape[1]);
  FglLoss p =
      make_problem(arguments, edges, references, truths, owners, iou, reg_scale, up, normaliser);
  p.parts = arguments.share(parts);
  StageSums totals = arguments.sums(parts, normaliser);
  totals.sums[0] = arguments.of_stages("sums", sums);
  dispatch_float(edges.dtype, [&](auto type) {
    launch_fgl_loss<typename decltype(type)::type>(p, false, stream_of(stream));
  });
  launch_stage_sums(totals, stream_of(stream));
}

void fgl_loss_backward(const AnyView<1>& grad, const AnyView<5>& edges,
                       const AnyView<4>& references, const AnyView<3>& truths,
                       const AnyView<3>& owners, const AnyView<3>& iou, float reg_scale, float up,
                       const Normaliser& normaliser, const AnyView<5>& grad_edges,
                       std::int64_t stream) {
  const StageArguments arguments("fgl_loss_backward", edges, truths.shape[1]);
  FglLoss p =
      make_problem(arguments, edges, references, truths, owners, iou, reg_scale, up, normaliser);
  p.grad = arguments.of_stages("grad", grad);
  dispatch_float(edges.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    p.grad_edges = arguments.items<T>("grad_edges", grad_edges, edges.shape);
    launch_fgl_loss<T>(p, true, stream_of(stream));
  });
}

}  // namespace detrx::cuda
