#include "cuda/decode.h"

#include "core/error.h"
#include "trt/plugins/operators.h"

namespace detrx::trt {
namespace {

class Decode final : public Operator {
 public:
  explicit Decode(Settings settings) : Operator(std::move(settings)) {
    const std::int32_t top = settings_.whole("top");
    demand(top > 0 && top <= cuda::kMostAnswers, settings_, "top must be 1 to ", cuda::kMostAnswers,
           ", got ", top);
    for (const char* const name : {"each", "no_object"}) {
      const std::int32_t value = settings_.whole(name);
      demand(value == 0 || value == 1, settings_, name, " must be 0 or 1, got ", value);
    }
    demand(each() || (!no_object() && settings_.wholes("columns").empty()), settings_,
           "each must be 1 where there is no_object or columns");
    problem_.columns = 0x10000;  // until the logits are known
    cuda::name_columns(problem_, settings_.wholes("columns"));
    problem_.decoding = each() ? Decoding::queries : Decoding::pairs;
    problem_.sigmoid = !no_object();
    problem_.top = top;
  }

  void shape(const DimsExprs* inputs, IExprBuilder& builder, DimsExprs* outputs) const override {
    demand_rank(settings_, "logits", 3, inputs[0].nbDims);
    for (int i = 0; i < 4; ++i) {
      outputs[i].nbDims = i == 2 ? 3 : 2;
      outputs[i].d[0] = inputs[0].d[0];
      outputs[i].d[1] = builder.constant(settings_.whole("top"));
    }
    outputs[2].d[2] = builder.constant(4);
  }

  void check(const PluginTensorDesc* inputs) const override {
    const Shape logits = shape_of(inputs[0].dims), boxes = shape_of(inputs[1].dims);
    demand(logits.rank == 3 && boxes == Shape{3, {logits.side[0], logits.side[1], 4}}, settings_,
           "logits must be (B, Q, W) and boxes (B, Q, 4), got ", logits, " and ", boxes);
    demand(cuda::can_decode(logits.side[1], logits.side[2], problem_.top, problem_.decoding),
           settings_, "logits ", logits, " do not give ", problem_.top, " answers");
    cuda::DecodeProblem problem;
    problem.columns = logits.side[2];
    cuda::name_columns(problem, settings_.wholes("columns"));
  }

  std::size_t workspace(const PluginTensorDesc* inputs) const override {
    const Shape logits = shape_of(inputs[0].dims);
    return static_cast<std::size_t>(
        cuda::decode_workspace(logits.side[0], logits.side[1], problem_.decoding));
  }

  void run(const Call& call) const override {
    check(call.ports);
    const Shape logits = shape_of(call.ports[0].dims);
    cuda::DecodeProblem problem = problem_;
    problem.images = logits.side[0];
    problem.queries = logits.side[1];
    problem.columns = logits.side[2];
    problem.logits = call.inputs[0];
    problem.boxes = call.inputs[1];
    problem.scores = static_cast<float*>(call.outputs[0]);
    problem.labels = call.outputs[1];
    problem.corners = static_cast<float*>(call.outputs[2]);
    problem.chosen = static_cast<std::int32_t*>(call.outputs[3]);
    cuda::decode<float>(problem, call.workspace, call.stream);
  }

 private:
  bool each() const { return settings_.whole("each") != 0; }
  bool no_object() const { return settings_.whole("no_object") != 0; }

  cuda::DecodeProblem problem_{};  // without what a call has
};

}  // namespace

const Kind& decode_kind() {
  using Type = Attribute::Kind;
  static const Kind kind{"DetrxDecode",
                         {{"top", Type::whole},
                          {"each", Type::whole},
                          {"no_object", Type::whole},
                          {"columns", Type::wholes, true}},
                         "ff",
                         "fifi",
                         2,
                         [](Settings settings) -> std::unique_ptr<Operator> {
                           return std::make_unique<Decode>(std::move(settings));
                         }};
  return kind;
}

}  // namespace detrx::trt
