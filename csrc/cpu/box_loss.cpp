#include "cpu/box_loss.h"

#include <algorithm>
#include <vector>

#include "core/half.h"
#include "core/vector_math.h"
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

// So many pairs are looked at together, whatever the width of the vectors.
constexpr int kPairs = 16;

// Pairs of a query's box and its truth: numbers of one kind side by side. Lanes without a pair hold
// what was there before.
struct Pairs {
  float ours[4][kPairs] = {}, truth[4][kPairs] = {};
  std::int64_t query[kPairs] = {};
  int count = 0;
};

struct Distances {
  float l1[kPairs], away[kPairs], iou[kPairs];
};

struct Slopes {
  float box[4][kPairs];
};

// How much one unit of each loss of a stage counts.
struct Scale {
  float l1, away;
};

template <typename Lanes>
DETRX_INLINE CentresOf<typename Lanes::Floats> read_lanes(const float (&boxes)[4][kPairs],
                                                          int first) {
  CentresOf<typename Lanes::Floats> box;
  load_floats<Lanes>(boxes[0] + first, box.cx);
  load_floats<Lanes>(boxes[1] + first, box.cy);
  load_floats<Lanes>(boxes[2] + first, box.w);
  load_floats<Lanes>(boxes[3] + first, box.h);
  return box;
}

struct MeasurePairs {
  template <typename Lanes>
  static DETRX_INLINE void run(const Pairs& pairs, Overlap kind, Distances& to) {
    for (int i = 0; i < pairs.count; i += Lanes::kCount) {
      const auto ours = read_lanes<Lanes>(pairs.ours, i), truth = read_lanes<Lanes>(pairs.truth, i);
      const auto meeting = meet(ours, truth);
      store_floats<Lanes>(distance(ours, truth), to.l1 + i);
      store_floats<Lanes>(1.0F - overlap(kind, meeting, ours, truth), to.away + i);
      store_floats<Lanes>(meeting.iou, to.iou + i);
    }
  }
};

struct DifferentiatePairs {
  template <typename Lanes>
  static DETRX_INLINE void run(const Pairs& pairs, Overlap kind, const Scale& scale, Slopes& to) {
    for (int i = 0; i < pairs.count; i += Lanes::kCount) {
      const auto a = read_lanes<Lanes>(pairs.ours, i), b = read_lanes<Lanes>(pairs.truth, i);
      const auto slope = overlap_slope(kind, meet(a, b), a, b);
      const float l1 = scale.l1, away = scale.away;
      store_floats<Lanes>(l1 * sign(a.cx - b.cx) - away * slope.cx, to.box[0] + i);
      store_floats<Lanes>(l1 * sign(a.cy - b.cy) - away * slope.cy, to.box[1] + i);
      store_floats<Lanes>(l1 * sign(a.w - b.w) - away * slope.w, to.box[2] + i);
      store_floats<Lanes>(l1 * sign(a.h - b.h) - away * slope.h, to.box[3] + i);
    }
  }
};

// Calls work(pairs) for all queries that own a target in one image of one stage, kPairs at a time.
template <typename Item, typename Work>
void visit(const Problem& p, const TensorView<const Item, 4>& boxes, std::int64_t stage,
           std::int64_t image, const Work& work) {
  const std::int32_t* const row = p.owners.row(stage, image);
  const auto& stride = boxes.stride;
  const Item* const base = boxes.data + stage * stride[0] + image * stride[1];
  const float* const truths = p.truths + image * p.targets * 4;
  Pairs pairs;
  std::int64_t owning[Owners::kListed];
  for (std::int64_t first = 0; first < p.queries; first += Owners::kListed) {
    const std::int64_t end = std::min(first + Owners::kListed, p.queries);
    const int count = Owners::list(row, first, end, owning);
    for (int i = 0; i < count; ++i) {
      const std::int64_t q = owning[i];
      const Item* const ours = base + q * stride[2];
      const float* const truth = truths + p.owners.target(row, q) * 4;
      for (int k = 0; k < 4; ++k) {
        pairs.ours[k][pairs.count] = to_float(ours[k * stride[3]]);
        pairs.truth[k][pairs.count] = truth[k];
      }
      pairs.query[pairs.count] = q;
      if (++pairs.count < kPairs) continue;
      work(pairs);
      pairs.count = 0;
    }
  }
  if (pairs.count) work(pairs);
}

struct Sums {
  double l1 = 0.0, away = 0.0;
};

// One image in one stage.
template <typename Item>
Sums measure(const Problem& p, const TensorView<const Item, 4>& boxes, Overlap kind, float* iou,
             std::int64_t stage, std::int64_t image) {
  static const auto measure_pairs =
      Entries<MeasurePairs, void, const Pairs&, Overlap, Distances&>::best();
  Sums sums;
  std::fill(iou, iou + p.queries, 0.0F);
  visit(p, boxes, stage, image, [&](const Pairs& pairs) {
    Distances found;
    measure_pairs(pairs, kind, found);
    for (int i = 0; i < pairs.count; ++i) {
      iou[pairs.query[i]] = found.iou[i];
      sums.l1 += static_cast<double>(found.l1[i]);
      sums.away += static_cast<double>(found.away[i]);
    }
  });
  return sums;
}

template <typename Item>
void differentiate(const Problem& p, const TensorView<const Item, 4>& boxes, Overlap kind,
                   const Scale& scale, Item* grad, std::int64_t stage, std::int64_t image) {
  static const auto differentiate_pairs =
      Entries<DifferentiatePairs, void, const Pairs&, Overlap, const Scale&, Slopes&>::best();
  std::fill(grad, grad + 4 * p.queries, Item{});
  visit(p, boxes, stage, image, [&](const Pairs& pairs) {
    Slopes found;
    differentiate_pairs(pairs, kind, scale, found);
    for (int i = 0; i < pairs.count; ++i) {
      Item* const to = grad + 4 * pairs.query[i];
      for (int k = 0; k < 4; ++k) to[k] = from_float<Item>(found.box[k][i]);
    }
  });
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
  require_grad(kWhere, "grad_boxes", grad_boxes, boxes);
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
