#include "cpu/box_loss.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/half.h"
#include "cpu/owners.h"
#include "cpu/parallel.h"

namespace detrx::cpu {
namespace {

constexpr const char* kWhere = "box_loss";

// How many queries are worth a thread: nearly all of them own nothing and are passed over.
constexpr std::int64_t kQueries = 1 << 16;

struct Problem {
  Problem(const AnyView<4>& boxes, const TensorView<const float, 3>& truth,
          const TensorView<const std::int32_t, 3>& owner, float divisor, int threads)
      : stages(boxes.shape[0]),
        images(boxes.shape[1]),
        queries(boxes.shape[2]),
        targets(truth.shape[1]),
        truths(truth.data),
        owners(kWhere, owner, {stages, images, queries}, targets),
        normaliser(divisor) {
    require_device(kWhere, "boxes", boxes, Device::cpu);
    require_shape(kWhere, "boxes", boxes, {stages, images, queries, 4});
    require_shape(kWhere, "truths", truth, {images, targets, 4});
    require_contiguous(kWhere, "truths", truth);
    require(threads >= 1, "[box_loss] threads must be >= 1, got ", threads);
  }

  std::int64_t stages, images, queries, targets;
  const float* truths;
  Owners owners;
  float normaliser;
};

template <typename Item>
Box read_box(const TensorView<const Item, 4>& boxes, std::int64_t stage, std::int64_t image,
             std::int64_t query) {
  const auto& stride = boxes.stride;
  const Item* const at = boxes.data + stage * stride[0] + image * stride[1] + query * stride[2];
  return {to_float(at[0]), to_float(at[stride[3]]), to_float(at[2 * stride[3]]),
          to_float(at[3 * stride[3]])};
}

Box read_truth(const Problem& p, std::int64_t image, std::int64_t target) {
  const float* const at = p.truths + (image * p.targets + target) * 4;
  return {at[0], at[1], at[2], at[3]};
}

struct Sums {
  double l1 = 0.0, away = 0.0;
};

// One image in one stage.
template <typename Item>
Sums measure(const Problem& p, const TensorView<const Item, 4>& boxes, Overlap kind, float* iou,
             std::int64_t stage, std::int64_t image) {
  const std::int32_t* const row = p.owners.row(stage, image);
  Sums sums;
  std::fill(iou, iou + p.queries, 0.0F);
  for (std::int64_t q = 0; (q = Owners::next(row, q, p.queries)) < p.queries; ++q) {
    const Box ours = read_box(boxes, stage, image, q);
    const Box truth = read_truth(p, image, p.owners.target(row, q));
    const Meeting meeting = meet(ours, truth);
    iou[q] = meeting.iou;
    sums.l1 += static_cast<double>(distance(ours, truth));
    sums.away += static_cast<double>(1.0F - overlap(kind, meeting, ours, truth));
  }
  return sums;
}

// How much one unit of each loss of a stage counts.
struct Scale {
  float l1, away;
};

template <typename Item>
void differentiate(const Problem& p, const TensorView<const Item, 4>& boxes, Overlap kind,
                   Scale scale, Item* grad, std::int64_t stage, std::int64_t image) {
  const std::int32_t* const row = p.owners.row(stage, image);
  std::memset(static_cast<void*>(grad), 0, static_cast<std::size_t>(4 * p.queries) * sizeof(Item));
  for (std::int64_t q = 0; (q = Owners::next(row, q, p.queries)) < p.queries; ++q) {
    const Box ours = read_box(boxes, stage, image, q);
    const Box truth = read_truth(p, image, p.owners.target(row, q));
    const Box slope = overlap_slope(kind, meet(ours, truth), ours, truth);
    const auto total = [&](float difference, float of_overlap) {
      return from_float<Item>(scale.l1 * sign(difference) - scale.away * of_overlap);
    };
    grad[4 * q] = total(ours.cx - truth.cx, slope.cx);
    grad[4 * q + 1] = total(ours.cy - truth.cy, slope.cy);
    grad[4 * q + 2] = total(ours.w - truth.w, slope.w);
    grad[4 * q + 3] = total(ours.h - truth.h, slope.h);
  }
}

}  // namespace

void box_loss(const AnyView<4>& boxes, const TensorView<const float, 3>& truths,
              const TensorView<const std::int32_t, 3>& owners, Overlap kind, float normaliser,
              const TensorView<float, 1>& l1, const TensorView<float, 1>& away,
              const TensorView<float, 3>& iou, int threads) {
  const Problem p(boxes, truths, owners, normaliser, threads);
  require_shape(kWhere, "l1", l1, {p.stages});
  require_shape(kWhere, "away", away, {p.stages});
  require_shape(kWhere, "iou", iou, {p.stages, p.images, p.queries});
  require_contiguous(kWhere, "iou", iou);
  const std::int64_t tasks = p.stages * p.images;
  std::vector<double> l1_parts(static_cast<std::size_t>(tasks)), away_parts(l1_parts.size());
  dispatch_float(boxes.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto items = boxes.template items<const Item>();
    parallel(tasks, worth(tasks * p.queries, kQueries, threads), [&](std::int64_t task) {
      const Sums sums =
          measure(p, items, kind, iou.data + task * p.queries, task / p.images, task % p.images);
      l1_parts[static_cast<std::size_t>(task)] = sums.l1;
      away_parts[static_cast<std::size_t>(task)] = sums.away;
    });
  });
  sum_stages(l1_parts, normaliser, l1);
  sum_stages(away_parts, normaliser, away);
}

void box_loss_backward(const TensorView<const float, 1>& grad_l1,
                       const TensorView<const float, 1>& grad_away, const AnyView<4>& boxes,
                       const TensorView<const float, 3>& truths,
                       const TensorView<const std::int32_t, 3>& owners, Overlap kind,
                       float normaliser, const AnyView<4>& grad_boxes, int threads) {
  const Problem p(boxes, truths, owners, normaliser, threads);
  require_shape(kWhere, "grad_l1", grad_l1, {p.stages});
  require_shape(kWhere, "grad_away", grad_away, {p.stages});
  require_shape(kWhere, "grad_boxes", grad_boxes, boxes.shape);
  require_contiguous(kWhere, "grad_boxes", grad_boxes);
  require(grad_boxes.dtype == boxes.dtype && grad_boxes.device == Device::cpu,
          "[box_loss] grad_boxes must be of the type and device of boxes");
  const std::int64_t tasks = p.stages * p.images;
  dispatch_float(boxes.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto items = boxes.template items<const Item>();
    Item* const grad = grad_boxes.template items<Item>().data;
    parallel(tasks, worth(tasks * p.queries, kQueries, threads), [&](std::int64_t task) {
      const std::int64_t stage = task / p.images;
      const Scale scale{grad_l1.data[stage * grad_l1.stride[0]] / p.normaliser,
                        grad_away.data[stage * grad_away.stride[0]] / p.normaliser};
      differentiate(p, items, kind, scale, grad + task * p.queries * 4, stage, task % p.images);
    });
  });
}

}  // namespace detrx::cpu
