#include "cuda/layer_norm.h"

#include <limits>

#include "core/error.h"
#include "trt/plugins/operators.h"

namespace detrx::trt {
namespace {

class LayerNorm final : public Operator {
 public:
  explicit LayerNorm(Settings settings) : Operator(std::move(settings)) {
    const float epsilon = settings_.real("epsilon");
    demand(epsilon >= 0.0F && epsilon < 1.0F, settings_, "epsilon must be small, got ", epsilon);
  }

  void shape(const DimsExprs* inputs, IExprBuilder& /*builder*/,
             DimsExprs* outputs) const override {
    outputs[0] = inputs[0];
  }

  void check(const PluginTensorDesc* inputs) const override {
    const Shape x = shape_of(inputs[0].dims);
    demand(x.rank >= 1 && columns(x) > 0 && columns(x) <= std::numeric_limits<std::int32_t>::max(),
           settings_, "x must have items along its last side, got ", x);
    for (std::size_t i = 1; i < 3; ++i) {
      demand(shape_of(inputs[i].dims) == Shape{1, {columns(x)}}, settings_,
             i == 1 ? "gain" : "bias", " must be (", columns(x), "), got ",
             shape_of(inputs[i].dims));
    }
  }

  void run(const Call& call) const override {
    check(call.ports);
    const Shape x = shape_of(call.ports[0].dims);
    cuda::LayerNormProblem problem{};
    problem.x = call.inputs[0];
    problem.gain = static_cast<const float*>(call.inputs[1]);
    problem.bias = static_cast<const float*>(call.inputs[2]);
    problem.out = call.outputs[0];
    problem.rows = x.items() / columns(x);
    problem.columns = static_cast<std::int32_t>(columns(x));
    problem.epsilon = settings_.real("epsilon");
    cuda::layer_norm(problem, dtype_of(call.ports[0]), call.stream);
  }

 private:
  static std::int64_t columns(const Shape& x) { return x.side[x.rank - 1]; }
};

}  // namespace

const Kind& layer_norm_kind() {
  static const Kind kind{"DetrxLayerNorm",
                         {{"epsilon", Attribute::Kind::real}},
                         "Tff",
                         "T",
                         3,
                         [](Settings settings) -> std::unique_ptr<Operator> {
                           return std::make_unique<LayerNorm>(std::move(settings));
                         }};
  return kind;
}

}  // namespace detrx::trt
