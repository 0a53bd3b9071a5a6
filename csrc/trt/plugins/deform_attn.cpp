#include "cuda/deform_attn.h"

#include <numeric>

#include "core/error.h"
#include "trt/plugins/operators.h"

namespace detrx::trt {
namespace {

class DeformAttn final : public Operator {
 public:
  explicit DeformAttn(Settings settings) : Operator(std::move(settings)) {
    const auto& sides = settings_.wholes("shapes");
    const auto& points = settings_.wholes("points");
    sides_.assign(sides.begin(), sides.end());
    points_.assign(points.begin(), points.end());
    demand(!points_.empty() && sides_.size() == 2 * points_.size() && points_.size() <= kMostLevels,
           settings_, "shapes and points must be of the same 1 to ", kMostLevels, " levels, got ",
           sides_.size(), " sides and ", points_.size(), " numbers of points");
    for (std::size_t i = 0; i < points_.size(); ++i) {
      const std::int64_t height = sides_[2 * i], width = sides_[2 * i + 1];
      demand(height > 0 && width > 0 && points_[i] >= 0, settings_, "level ", i, " must have sides",
             " and points that can be, got ", height, " x ", width, " with ", points_[i]);
      pixels_ += height * width;
    }
    each_ = std::accumulate(points_.begin(), points_.end(), std::int64_t{0});
  }

  void shape(const DimsExprs* inputs, IExprBuilder& builder, DimsExprs* outputs) const override {
    demand_rank(settings_, "values", 4, inputs[0].nbDims);
    demand_rank(settings_, "boxes", 3, inputs[1].nbDims);
    outputs[0].nbDims = 3;
    outputs[0].d[0] = inputs[1].d[0];
    outputs[0].d[1] = inputs[1].d[1];
    outputs[0].d[2] =
        builder.operation(nvinfer1::DimensionOperation::kPROD, *inputs[0].d[2], *inputs[0].d[3]);
  }

  void check(const PluginTensorDesc* inputs) const override {
    const Shape values = shape_of(inputs[0].dims), boxes = shape_of(inputs[1].dims);
    demand(values.rank == 4 && values.side[1] == pixels_, settings_, "values must be (B, ", pixels_,
           ", H, D), got ", values);
    const std::int64_t images = values.side[0], queries = boxes.side[1], heads = values.side[2];
    demand(boxes == Shape{3, {images, queries, 4}}, settings_, "boxes must be (", images,
           ", Q, 4), got ", boxes);
    for (std::size_t i = 2; i < 4; ++i) {
      const std::int64_t width = heads * each_ * (i == 2 ? 2 : 1);
      demand(shape_of(inputs[i].dims) == Shape{3, {images, queries, width}}, settings_,
             i == 2 ? "offsets" : "logits", " must be (", images, ", ", queries, ", ", width,
             "), got ", shape_of(inputs[i].dims));
    }
  }

  void run(const Call& call) const override {
    check(call.ports);
    const Shape values = shape_of(call.ports[0].dims), boxes = shape_of(call.ports[1].dims);
    cuda::BoxAttention task{};
    task.images = values.side[0];
    task.pixels = values.side[1];
    task.queries = boxes.side[1];
    task.heads = values.side[2];
    task.channels = values.side[3];
    task.values = call.inputs[0];
    task.boxes = static_cast<const float*>(call.inputs[1]);
    task.offsets = call.inputs[2];
    task.logits = call.inputs[3];
    task.out = call.outputs[0];
    cuda::deform_attn_of_boxes(task, sides_, points_, settings_.real("reach"),
                               dtype_of(call.ports[0]), call.stream);
  }

 private:
  static constexpr std::size_t kMostLevels = 8;

  std::vector<std::int64_t> sides_, points_;
  std::int64_t pixels_ = 0, each_ = 0;  // of all levels
};

}  // namespace

const Kind& deform_attn_kind() {
  using Type = Attribute::Kind;
  static const Kind kind{
      "DetrxDeformAttn",
      {{"shapes", Type::wholes}, {"points", Type::wholes}, {"reach", Type::real}},
      "TfTT",
      "T",
      4,
      [](Settings settings) -> std::unique_ptr<Operator> {
        return std::make_unique<DeformAttn>(std::move(settings));
      }};
  return kind;
}

}  // namespace detrx::trt
