#include "cuda/box_loss.h"

#include <array>

namespace detrx::cuda {
namespace {

BoxLoss make_problem(const StageArguments& arguments, const AnyView<4>& boxes,
                     const AnyView<3>& truths, const AnyView<3>& owners, Overlap kind,
                     const Normaliser& normaliser) {
  BoxLoss p{};
  p.stages = arguments.stages(owners, normaliser);
  p.boxes = arguments.memory("boxes", boxes, {boxes.shape[0], boxes.shape[1], boxes.shape[2], 4});
  p.truths = arguments.truths(truths);
  p.kind = kind;
  return p;
}

}  // namespace

void box_loss(const AnyView<4>& boxes, const AnyView<3>& truths, const AnyView<3>& owners,
              Overlap kind, const Normaliser& normaliser, const AnyView<1>& l1,
              const AnyView<1>& away, const AnyView<3>& iou, const AnyView<3>& parts,
              std::int64_t stream) {
  const StageArguments arguments("box_loss", boxes, truths.shape[1]);
  BoxLoss p = make_problem(arguments, boxes, truths, owners, kind, normaliser);
  p.iou = arguments.of_queries("iou", iou);
  p.parts = arguments.share(parts);
  StageSums sums = arguments.sums(parts, normaliser);
  sums.sums[0] = arguments.of_stages("l1", l1);
  sums.sums[1] = arguments.of_stages("away", away);
  dispatch_float(boxes.dtype, [&](auto type) {
    launch_box_loss<typename decltype(type)::type>(p, false, stream_of(stream));
  });
  launch_stage_sums(sums, stream_of(stream));
}

void box_loss_backward(const AnyView<1>& grad_l1, const AnyView<1>& grad_away,
                       const AnyView<4>& boxes, const AnyView<3>& truths, const AnyView<3>& owners,
                       Overlap kind, const Normaliser& normaliser, const AnyView<4>& grad_boxes,
                       std::int64_t stream) {
  const StageArguments arguments("box_loss_backward", boxes, truths.shape[1]);
  BoxLoss p = make_problem(arguments, boxes, truths, owners, kind, normaliser);
  p.grad_l1 = arguments.of_stages("grad_l1", grad_l1);
  p.grad_away = arguments.of_stages("grad_away", grad_away);
  dispatch_float(boxes.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    p.grad_boxes = arguments.items<T>("grad_boxes", grad_boxes, boxes.shape);
    launch_box_loss<T>(p, true, stream_of(stream));
  });
}

}  // namespace detrx::cuda
