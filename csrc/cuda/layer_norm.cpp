#include "cuda/layer_norm.h"

#include <limits>

#include "core/half.h"
#include "cuda/arguments.h"
#include "cuda/shape.h"

namespace detrx::cuda {

void layer_norm(const LayerNormProblem& p, Dtype dtype, Stream stream) {
  require(p.columns > 0, "[layer_norm] rows must have items");
  dispatch_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kVector = 16 / sizeof(T);
    const bool wide =
        p.columns % kVector == 0 && aligned(p.x) && aligned(p.residual) && aligned(p.out);
    (wide ? launch_layer_norm<T, kVector> : launch_layer_norm<T, 1>)(p, stream);
  });
}

void layer_norm(const AnyView<2>& x, const std::optional<AnyView<2>>& residual,
                const AnyView<1>& gain, const AnyView<1>& bias, float epsilon,
                const AnyView<2>& out, std::int64_t stream) {
  require(x.shape[1] > 0 && x.shape[1] <= std::numeric_limits<std::int32_t>::max(),
          "[layer_norm] rows must have items, got ", text(x.shape));
  const Arguments arguments("layer_norm", x.device_index);
  LayerNormProblem p{};
  p.x = arguments.memory("x", x, x.shape);
  for (const AnyView<2>* const like : {residual ? &*residual : &x, &out}) {
    require(like->dtype == x.dtype, "[layer_norm] all must be ", text(x.dtype), ", got ",
            text(like->dtype));
  }
  if (residual) p.residual = arguments.memory("residual", *residual, x.shape);
  p.gain = arguments.items<const float>("gain", gain, {x.shape[1]});
  p.bias = arguments.items<const float>("bias", bias, {x.shape[1]});
  p.out = arguments.memory("out", out, x.shape);
  p.rows = x.shape[0];
  p.columns = static_cast<std::int32_t>(x.shape[1]);
  p.epsilon = epsilon;
  layer_norm(p, x.dtype, stream_of(stream));
}

}  // namespace detrx::cuda
