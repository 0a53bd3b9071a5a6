#include "cuda/focal_loss.h"

#include <limits>

namespace detrx::cuda {
namespace {

FocalLoss make_problem(const StageArguments& arguments, const AnyView<4>& logits,
                       const AnyView<2>& labels, const AnyView<3>& owners,
                       const std::optional<AnyView<3>>& quality, const FocalTerms& terms,
                       const Normaliser& normaliser) {
  const std::int64_t classes = logits.shape[3];
  require(classes <= std::numeric_limits<std::int32_t>::max() / (2 * kQueries),
          "[focal_loss] at most 2^25 classes, got ", classes);
  FocalLoss p{};
  p.stages = arguments.stages(owners, normaliser);
  p.logits = arguments.memory("logits", logits, logits.shape);
  p.labels = arguments.labels(labels);
  p.quality = quality ? arguments.of_queries("quality", *quality) : nullptr;
  p.classes = static_cast<std::int32_t>(classes);
  p.terms = terms;
  return p;
}

}  // namespace

void focal_loss(const AnyView<4>& logits, const AnyView<2>& labels, const AnyView<3>& owners,
                const std::optional<AnyView<3>>& quality, FocalKind kind, float alpha, float gamma,
                const Normaliser& normaliser, const AnyView<1>& sums, const AnyView<3>& parts,
                std::int64_t stream) {
  const StageArguments arguments("focal_loss", logits, labels.shape[1]);
  FocalLoss p = make_problem(arguments, logits, labels, owners, quality,
                             focal_terms(kind, alpha, gamma), normaliser);
  p.parts = arguments.share(parts);
  StageSums totals = arguments.sums(parts, normaliser);
  totals.sums[0] = arguments.of_stages("sums", sums);
  dispatch_float(logits.dtype, [&](auto type) {
    launch_focal_loss<typename decltype(type)::type>(p, false, stream_of(stream));
  });
  launch_stage_sums(totals, stream_of(stream));
}

void focal_loss_backward(const AnyView<1>& grad, const AnyView<4>& logits, const AnyView<2>& labels,
                         const AnyView<3>& owners, const std::optional<AnyView<3>>& quality,
                         FocalKind kind, float alpha, float gamma, const Normaliser& normaliser,
                         const AnyView<4>& grad_logits, std::int64_t stream) {
  const StageArguments arguments("focal_loss_backward", logits, labels.shape[1]);
  FocalLoss p = make_problem(arguments, logits, labels, owners, quality,
                             focal_terms(kind, alpha, gamma), normaliser);
  p.grad = arguments.of_stages("grad", grad);
  dispatch_float(logits.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    p.grad_logits = arguments.items<T>("grad_logits", grad_logits, logits.shape);
    launch_focal_loss<T>(p, true, stream_of(stream));
  });
}

}  // namespace detrx::cuda
