#include "cuda/attention.h"

#include <cmath>

#include "core/error.h"
#include "trt/plugins/operators.h"

namespace detrx::trt {
namespace {

class Attention final : public Operator {
 public:
  explicit Attention(Settings settings) : Operator(std::move(settings)) {
    demand(heads() > 0, settings_, "heads must be positive, got ", heads());
    demand(std::isfinite(settings_.real("scale")), settings_, "scale must be finite, got ",
           settings_.real("scale"));
  }

  void connect(std::int32_t inputs) override { settings_.set("inputs", inputs); }

  void shape(const DimsExprs* inputs, IExprBuilder& /*builder*/,
             DimsExprs* outputs) const override {
    demand_rank(settings_, "query", 3, inputs[0].nbDims);
    outputs[0] = inputs[0];
  }

  void check(const PluginTensorDesc* inputs) const override {
    const Shape query = shape_of(inputs[0].dims), key = shape_of(inputs[1].dims);
    const std::int64_t width = std::int64_t{heads()} * cuda::kHead;
    demand(query.rank == 3 && query.side[2] == width, settings_, "query must be (B, N, ", width,
           "), ", cuda::kHead, " for each head, got ", query);
    for (std::size_t i = 1; i < 3; ++i) {
      const Shape found = shape_of(inputs[i].dims);
      demand(found == Shape{3, {query.side[0], key.side[1], width}}, settings_,
             i == 1 ? "key" : "value", " must be (", query.side[0], ", S, ", width, "), got ",
             found);
    }
    if (!biased()) return;
    const Shape bias = shape_of(inputs[3].dims);
    demand(bias == Shape{2, {query.side[0], key.side[1]}}, settings_, "bias must be (",
           query.side[0], ", ", key.side[1], "), got ", bias);
  }

  void run(const Call& call) const override {
    check(call.ports);
    const Shape query = shape_of(call.ports[0].dims), key = shape_of(call.ports[1].dims);
    cuda::AttentionProblem problem{};
    problem.query = call.inputs[0];
    problem.key = call.inputs[1];
    problem.value = call.inputs[2];
    problem.bias = biased() ? static_cast<const float*>(call.inputs[3]) : nullptr;
    problem.out = call.outputs[0];
    problem.images = query.side[0];
    problem.queries = static_cast<std::int32_t>(query.side[1]);
    problem.keys = static_cast<std::int32_t>(key.side[1]);
    problem.heads = heads();
    problem.scale = settings_.real("scale");
    cuda::attention(problem, dtype_of(call.ports[0]), call.stream);
  }

 private:
  std::int32_t heads() const { return settings_.whole("heads"); }
  bool biased() const { return settings_.whole("inputs") == 4; }
};

}  // namespace

const Kind& attention_kind() {
  using Type = Attribute::Kind;
  // "inputs" is no attribute of the node: a plan keeps in it whether there is a bias.
  static const Kind kind{
      "DetrxAttention",
      {{"heads", Type::whole}, {"scale", Type::real}, {"inputs", Type::whole, true}},
      "TTTf",
      "T",
      3,
      [](Settings settings) -> std::unique_ptr<Operator> {
        return std::make_unique<Attention>(std::move(settings));
      }};
  return kind;
}

}  // namespace detrx::trt
