#include "cuda/cross_entropy.h"

#include <limits>

namespace detrx::cuda {
namespace {

CrossEntropy make_problem(const StageArguments& arguments, const AnyView<4>& logits,
                          const AnyView<2>& labels, const AnyView<3>& owners, float no_object,
                          const AnyView<3>& log_sums) {
  const std::int64_t classes = logits.shape[3];
  require(classes >= 1 && classes <= std::numeric_limits<std::int32_t>::max() / 2,
          "[cross_entropy] logits must have a last class for no object and at most 2^30, got ",
          classes);
  CrossEntropy p{};
  p.stages = arguments.stages(owners, std::nullopt);
  p.logits = arguments.memory("logits", logits, logits.shape);
  p.labels = arguments.labels(labels);
  p.classes = static_cast<std::int32_t>(classes);
  p.no_object = no_object;
  p.log_sums = arguments.of_queries("log_sums", log_sums);
  return p;
}

}  // namespace

void cross_entropy(const AnyView<4>& logits, const AnyView<2>& labels, const AnyView<3>& owners,
                   float no_object, const AnyView<1>& means, const AnyView<3>& log_sums,
                   const AnyView<1>& weights, const AnyView<3>& parts, std::int64_t stream) {
  const StageArguments arguments("cross_entropy", logits, labels.shape[1]);
  CrossEntropy p = make_problem(arguments, logits, labels, owners, no_object, log_sums);
  p.parts = arguments.share(parts);
  StageSums sums = arguments.sums(parts, std::nullopt);
  sums.sums[0] = arguments.of_stages("means", means);
  sums.sums[1] = arguments.of_stages("weights", weights);
  sums.mean = true;
  dispatch_float(logits.dtype, [&](auto type) {
    launch_cross_entropy<typename decltype(type)::type>(p, false, stream_of(stream));
  });
  launch_stage_sums(sums, stream_of(stream));
}

void cross_entropy_backward(const AnyView<1>& grad, const AnyView<4>& logits,
                            const AnyView<2>& labels, const AnyView<3>& owners, float no_object,
                            const AnyView<3>& log_sums, const AnyView<1>& weights,
                            const AnyView<4>& grad_logits, std::int64_t stream) {
  const StageArguments arguments("cross_entropy_backward", logits, labels.shape[1]);
  CrossEntropy p = make_problem(arguments, logits, labels, owners, no_object, log_sums);
  p.grad = arguments.of_stages("grad", grad);
  p.weights = arguments.of_stages("weights", weights);
  dispatch_float(logits.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    p.grad_logits = arguments.items<T>("grad_logits", grad_logits, logits.shape);
    launch_cross_entropy<T>(p, true, stream_of(stream));
  });
}

}  // namespace detrx::cuda
