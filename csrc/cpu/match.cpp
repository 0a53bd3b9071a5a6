#include "cpu/match.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/class_costs.h"
#include "cpu/match_problem.h"
#include "cpu/parallel.h"
#include "cpu/unseen_classes.h"

namespace detrx::cpu {
namespace {

// Below about this many pairs in all, waking another thread takes longer than the work.
constexpr std::int64_t kWorthSharing = 20000;

// So many queries to a target and more: few of them come near any.
constexpr std::int64_t kFewTargets = 2;

// Writes the costs of all pairs and the cheapest query of each target. False when one is not
// finite.
template <typename Wide>
DETRX_INLINE bool write_costs(const Problem& p, Scratch& s, Cheapest cheapest) {
  using Floats = typename Wide::Floats;
  using Ints = typename Wide::Ints;
  const std::int64_t pitch = p.pitch(), queries = p.queries();
  const float* const boxes = s.boxes.get();
  const float l1 = p.weights.l1, giou = p.weights.giou;
  Floats sick{};  // zeros, or NaN
  for (std::int64_t t = 0; t < p.targets(); ++t) {
    const BoxOf<Floats> target = target_box<Floats>(p, t);
    const float* const class_cost = s.class_cost.get() + s.kind[t] * pitch;
    float* const to = s.cost.get() + t * pitch;
    Found<Floats, Ints> best{Floats{} + std::numeric_limits<float>::infinity(), Ints{}};
    Ints at = counting<Ints>();
    for (std::int64_t q = 0; q < pitch; q += Wide::kCount, at += Wide::kCount) {
      const BoxOf<Floats> box = box_at<Floats>(boxes + q, pitch);
      const Floats cost = load<Floats>(class_cost + q) + box_cost(box, target, l1, giou);
      store(cost, to + q);
      sick += cost * 0.0F;
      const Ints nearer = cost < best.value;
      best.value = nearer ? cost : best.value;
      best.place = nearer ? at : best.place;
    }
    std::fill(to + queries, to + pitch, std::numeric_limits<float>::infinity());
    const auto found = lowest(best);
    cheapest.cost[t] = found.value;
    cheapest.column[t] = found.place;
  }
  bool healthy = true;
  for (int lane = 0; lane < Wide::kCount; ++lane) healthy &= sick[lane] == 0.0F;
  return healthy;
}

template <typename Wide>
DETRX_INLINE void read_boxes(const Problem& p, Scratch& s) {
  const Dtype boxes = p.in.boxes.dtype;
  if (boxes == Dtype::float32) read_boxes<Wide, float>(p, s);
  if (boxes == Dtype::bfloat16) read_boxes<Wide, Bfloat16>(p, s);
  if (boxes == Dtype::float16) read_boxes<Wide, Half>(p, s);
}

template <typename Wide>
DETRX_INLINE void prepare_costs(const Problem& p, Scratch& s) {
  s.cost.reserve(p.targets() * p.pitch());
  const Dtype logits = p.in.logits.dtype;
  if (logits == Dtype::float32) class_costs<Wide, float>(p, s);
  if (logits == Dtype::bfloat16) class_costs<Wide, Bfloat16>(p, s);
  if (logits == Dtype::float16) class_costs<Wide, Half>(p, s);
  read_boxes<Wide>(p, s);
}

// Whether most of the softmax may turn out not to matter.
template <typename Wide>
DETRX_INLINE bool may_be_unseen(const Problem& p) {
  return p.weights.kind == ClassCost::softmax && p.weights.class_ > 0.0F &&
         p.targets() * kFewTargets <= p.queries() && p.queries() >= Wide::kCount &&
         p.in.logits.shape[3] >= Wide::kCount && p.in.logits.stride[3] == 1;
}

// Solves the problem without the softmax of queries that lie too far from all targets. False where
// something is not finite: then nothing has been solved.
template <typename Wide, typename T>
DETRX_INLINE bool solve_unseen(const Problem& p, Scratch& s, const CostRows& rows) {
  if (!all_finite<Wide, T>(p)) return false;
  float* const nothing = s.class_cost.reserve(p.pitch());
  std::fill_n(nothing, p.queries(), 0.0F);
  std::fill(nothing + p.queries(), nothing + p.pitch(), kLargest);
  std::fill_n(s.kind.reserve(p.targets()), p.targets(), 0);
  const Cheapest cheapest = prepare(s.assign, rows);
  if (!write_costs<Wide>(p, s, cheapest)) return false;
  UnseenClasses<Wide, T> unseen(p, s);
  unseen.hide();
  for (std::int64_t t = 0; t < p.targets(); ++t) {
    unseen.reveal(cheapest.column[t]);
    refresh<Wide>(s.assign, rows, t, unseen);
  }
  solve<Wide>(s.assign, rows, unseen);
  return true;
}

template <typename Wide>
DETRX_INLINE bool solve_unseen(const Problem& p, Scratch& s, std::int32_t* match) {
  const Dtype logits = p.in.logits.dtype;
  const CostRows rows{s.cost.reserve(p.targets() * p.pitch()), p.targets(), p.queries(), p.pitch(),
                      1};
  read_boxes<Wide>(p, s);
  const bool solved = logits == Dtype::float32    ? solve_unseen<Wide, float>(p, s, rows)
                      : logits == Dtype::bfloat16 ? solve_unseen<Wide, Bfloat16>(p, s, rows)
                                                  : solve_unseen<Wide, Half>(p, s, rows);
  for (std::int64_t row = 0; solved && row < rows.rows; ++row) {
    match[row] = s.assign.column[s.assign.slot[row]];
  }
  return solved;
}

// Writes the query of each target and returns how many costs were not finite.
template <typename Wide>
DETRX_INLINE std::int64_t solve_problem(const Problem& p, Scratch& s, std::int32_t* match) {
  if (may_be_unseen<Wide>(p) && solve_unseen<Wide>(p, s, match)) return 0;
  prepare_costs<Wide>(p, s);
  const std::int64_t targets = p.targets(), queries = p.queries(), pitch = p.pitch();
  const bool swapped = targets > queries;
  CostRows rows{s.cost.get(), std::min(targets, queries), std::max(targets, queries),
                swapped ? 1 : pitch, swapped ? pitch : 1};
  const Cheapest cheapest = prepare(s.assign, rows);
  std::int64_t bad = 0;
  if (!write_costs<Wide>(p, s, cheapest)) bad = heal(s.healthy, rows);
  if (swapped || bad > 0) look<Wide>(rows, cheapest);
  solve<Wide>(s.assign, rows, AllSeen{});
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    const std::int32_t column = s.assign.column[s.assign.slot[row]];
    match[swapped ? column : row] = swapped ? static_cast<std::int32_t>(row) : column;
  }
  return bad;
}

// Writes the costs as a plain tensor.
template <typename Wide>
DETRX_INLINE void cost_of_problem(const Problem& p, Scratch& s, float* to) {
  prepare_costs<Wide>(p, s);
  const std::int64_t targets = p.targets(), queries = p.queries();
  const CostRows rows{s.cost.get(), targets, queries, p.pitch(), 1};
  write_costs<Wide>(p, s, prepare(s.assign, rows));
  for (std::int64_t t = 0; t < targets; ++t) {
    std::copy_n(s.cost.get() + t * p.pitch(), queries, to + t * queries);
  }
}

#if DETRX_X86
DETRX_AVX512 std::int64_t solve_avx512(const Problem& p, Scratch& s, std::int32_t* match) {
  return solve_problem<Avx512Lanes>(p, s, match);
}
DETRX_AVX512 void cost_avx512(const Problem& p, Scratch& s, float* to) {
  cost_of_problem<Avx512Lanes>(p, s, to);
}

DETRX_AVX2 std::int64_t solve_avx2(const Problem& p, Scratch& s, std::int32_t* match) {
  return solve_problem<Avx2Lanes>(p, s, match);
}
DETRX_AVX2 void cost_avx2(const Problem& p, Scratch& s, float* to) {
  cost_of_problem<Avx2Lanes>(p, s, to);
}
#endif

std::int64_t solve_plain(const Problem& p, Scratch& s, std::int32_t* match) {
  return solve_problem<PlainLanes>(p, s, match);
}
void cost_plain(const Problem& p, Scratch& s, float* to) { cost_of_problem<PlainLanes>(p, s, to); }

std::int64_t solve_best(const Problem& p, std::int32_t* match) {
  std::fill_n(match, p.in.labels.shape[1], -1);
  if (p.targets() == 0 || p.queries() == 0) return 0;
  Scratch& s = of_this_thread<Scratch>();
#if DETRX_X86
  if (has_avx512()) return solve_avx512(p, s, match);
  if (has_avx2()) return solve_avx2(p, s, match);
#endif
  return solve_plain(p, s, match);
}

void cost_best(const Problem& p, float* to) {
  if (p.targets() == 0 || p.queries() == 0) return;
  Scratch& s = of_this_thread<Scratch>();
#if DETRX_X86
  if (has_avx512()) return cost_avx512(p, s, to);
  if (has_avx2()) return cost_avx2(p, s, to);
#endif
  cost_plain(p, s, to);
}

void check_targets(const MatchInput& in, std::int64_t image) {
  const std::int64_t most = in.labels.shape[1], classes = in.logits.shape[3];
  const std::int64_t count = in.counts.data[image * in.counts.stride[0]];
  require(count >= 0 && count <= most, "[match] counts must be in [0, ", most, "], got ", count,
          " for image ", image);
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t label =
        in.labels.data[image * in.labels.stride[0] + t * in.labels.stride[1]];
    require(label >= 0 && label < classes, "[match] labels must be in [0, ", classes, "), got ",
            label, " for target ", t, " of image ", image);
  }
}

void check(const MatchInput& in) {
  const auto& logits = in.logits;
  const std::int64_t images = logits.shape[1], most = in.labels.shape[1];
  for (const auto* view : {&in.logits, &in.boxes}) {
    const char* const name = view == &in.logits ? "logits" : "boxes";
    require_device("match", name, *view, Device::cpu);
    dispatch_float(view->dtype, [](auto) {});
  }
  require_shape("match", "boxes", in.boxes, {logits.shape[0], images, logits.shape[2], 4});
  require_shape("match", "labels", in.labels, {images, most});
  require_shape("match", "truths", in.truths, {images, most, 4});
  require_shape("match", "counts", in.counts, {images});
  for (std::int64_t image = 0; image < images; ++image) check_targets(in, image);
}

// The images with the most targets first, so that no thread ends on a long one.
std::vector<std::int64_t> largest_first(const MatchInput& in) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(in.logits.shape[1]));
  std::iota(order.begin(), order.end(), 0);
  const auto count = [&](std::int64_t image) {
    return in.counts.data[image * in.counts.stride[0]];
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return count(a) > count(b); });
  return order;
}

// Layers times queries times targets.
std::int64_t pairs(const MatchInput& in) {
  std::int64_t targets = 0;
  for (std::int64_t b = 0; b < in.counts.shape[0]; ++b) {
    targets += in.counts.data[b * in.counts.stride[0]];
  }
  return in.logits.shape[0] * in.logits.shape[2] * targets;
}

}  // namespace

std::int64_t match(const MatchInput& in, const CostWeights& weights,
                   TensorView<std::int32_t, 2> match, TensorView<std::int32_t, 1> bad,
                   int threads) {
  const std::int64_t layers = in.logits.shape[0], images = in.logits.shape[1];
  check(in);
  require_shape("match", "match", match, {layers * images, in.labels.shape[1]});
  require_shape("match", "bad", bad, {layers * images});
  require_contiguous("match", "match", match);
  require(threads >= 1, "[match] threads must be >= 1, got ", threads);
  const std::vector<std::int64_t> order = largest_first(in);
  std::atomic<std::int64_t> total{0};
  const auto solve_one = [&](std::int64_t i) {
    const std::int64_t image = order[static_cast<std::size_t>(i / layers)], layer = i % layers;
    const std::int64_t n = layer * images + image;
    const std::int64_t found =
        solve_best({in, weights, layer, image}, match.data + n * match.stride[0]);
    bad.data[n * bad.stride[0]] = static_cast<std::int32_t>(found);
    if (found > 0) total += found;
  };
  parallel(layers * images, pairs(in) < kWorthSharing ? 1 : threads, solve_one);
  return total;
}

void match_cost(const MatchInput& in, const CostWeights& weights, TensorView<float, 3> cost) {
  const std::int64_t layers = in.logits.shape[0], images = in.logits.shape[1];
  check(in);
  require_shape("match_cost", "cost", cost,
                {layers * images, in.labels.shape[1], in.logits.shape[2]});
  require_contiguous("match_cost", "cost", cost);
  for (std::int64_t n = 0; n < layers * images; ++n) {
    cost_best({in, weights, n / images, n % images}, cost.data + n * cost.stride[0]);
  }
}

}  // namespace detrx::cpu
