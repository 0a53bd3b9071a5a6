#include "cpu/match.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <vector>

#include "core/assign.h"
#include "core/buffer.h"
#include "core/cost.h"
#include "core/half.h"
#include "core/inline.h"
#include "core/lanes.h"
#include "core/vector_math.h"
#include "cpu/parallel.h"

namespace detrx::cpu {
namespace {

// Below about this many pairs in all, waking another thread takes longer than the work.
constexpr std::int64_t kWorthSharing = 20000;

// Logits of more bytes than this come from memory, each from a line of its own: asking for those of
// the next queries early hides the wait. Asking for what is in the cache costs more than it gives.
constexpr std::int64_t kFits = 2 << 20;

constexpr float kLargest = std::numeric_limits<float>::max();

struct Scratch {
  AssignScratch assign;
  Buffer<float> boxes;         // 9 x pitch: the queries' boxes, as BoxOf lists them
  Buffer<float> class_cost;    // distinct classes x pitch
  Buffer<float> cost;          // targets x pitch
  Buffer<float> healthy;       // a copy of cost where some of it is not finite
  Buffer<float> row;           // the softmax of a query, and its logits where they are copied
  Buffer<std::int32_t> place;  // classes: 1 + where its cost is in class_cost; 0 for none
  Buffer<std::int64_t> used;   // the distinct classes of the image's targets
  Buffer<std::int32_t> kind;   // targets: which of those
};

// One layer of one image.
struct Problem {
  const MatchInput& in;
  const CostWeights& weights;
  std::int64_t layer, image;

  std::int64_t targets() const { return in.counts.data[image * in.counts.stride[0]]; }
  std::int64_t queries() const { return in.logits.shape[2]; }
  std::int64_t label(std::int64_t target) const {
    return in.labels.data[image * in.labels.stride[0] + target * in.labels.stride[1]];
  }
  template <typename T>
  const T* first(const AnyView<4>& view) const {
    return static_cast<const T*>(view.data) + layer * view.stride[0] + image * view.stride[1];
  }
  // Queries rounded up to whole vectors; not to whole pages, where rows would fight for one place
  // in the cache.
  std::int64_t pitch() const {
    const std::int64_t whole = padded(queries());
    return whole % 256 == 0 ? whole + kMostLanes : whole;
  }
};

// Lists the distinct classes of the targets and returns how many there are.
inline std::int64_t list_classes(const Problem& p, Scratch& s) {
  const std::int64_t targets = p.targets();
  std::int32_t* const place = s.place.reserve(p.in.logits.shape[3]);
  std::int64_t* const used = s.used.reserve(targets);
  std::int32_t* const kind = s.kind.reserve(targets);
  std::int32_t count = 0;
  for (std::int64_t t = 0; t < targets; ++t) {
    std::int32_t& at = place[p.label(t)];
    if (at == 0) {
      used[count] = p.label(t);
      at = ++count;
    }
    kind[t] = at - 1;
  }
  for (std::int64_t k = 0; k < count; ++k) place[used[k]] = 0;
  return count;
}

// The focal cost of each query at each used class, a vector of queries at a time.
template <typename Wide, typename T>
DETRX_INLINE void focal_costs(const Problem& p, Scratch& s, std::int64_t classes) {
  using Floats = typename Wide::Floats;
  constexpr int kCount = Wide::kCount;
  const CostWeights& w = p.weights;
  const T* const logits = p.first<T>(p.in.logits);
  const std::int64_t step = p.in.logits.stride[2], pitch = p.pitch();
  float* const to = s.class_cost.get();
  const bool far = p.in.logits.size() * static_cast<std::int64_t>(sizeof(T)) > kFits;
  for (std::int64_t q = 0; q < p.queries(); q += kCount) {
    const std::int64_t count = std::min<std::int64_t>(kCount, p.queries() - q);
    for (std::int64_t k = 0; k < classes; ++k) {
      const T* const from = logits + q * step + s.used[k] * p.in.logits.stride[3];
      T some[kCount] = {};
      if (count == kCount) {
        for (int lane = 0; lane < kCount; ++lane) some[lane] = from[lane * step];
        if (far) {
          for (int lane = 0; lane < kCount; ++lane) {
            __builtin_prefetch(from + (kCount + lane) * step);
          }
        }
      } else {
        for (std::int64_t lane = 0; lane < count; ++lane) some[lane] = from[lane * step];
      }
      Floats x;
      load_floats<FloatLanes<kCount>>(some, x);
      store(focal_cost(x, w.class_ * w.alpha, w.class_ * (1 - w.alpha), w.gamma),
            to + k * pitch + q);
    }
  }
}

template <typename Wide, typename T>
DETRX_INLINE typename Wide::Floats widened(const T* from) {
  typename Wide::Floats x;
  load_floats<FloatLanes<Wide::kCount>>(from, x);
  return x;
}

// Writes e to the power of each logit less `shift`, at most 88, and returns the sum. There are
// Wide::kCount logits at least; where they are no whole number of vectors, the last one goes back.
template <typename Wide, typename T>
DETRX_INLINE float exponentials(const T* from, std::int64_t count, typename Wide::Floats shift,
                                float* to) {
  using Floats = typename Wide::Floats;
  constexpr int kCount = Wide::kCount;
  const std::int64_t last = count - kCount, again = (kCount - count % kCount) % kCount;
  Floats sum{};
  for (std::int64_t c = 0; c <= last; c += kCount) {
    const Floats e = exp_below_88(least(Floats{} + 88.0F, widened<Wide>(from + c) - shift));
    store(e, to + c);
    sum += e;
  }
  if (again > 0) {
    const Floats e = exp_below_88(least(Floats{} + 88.0F, widened<Wide>(from + last) - shift));
    store(e, to + last);
    const auto is_new = counting<typename Wide::Ints>() >= static_cast<std::int32_t>(again);
    sum += is_new ? e : Floats{};
  }
  return sum_lanes<FloatLanes<kCount>>(sum);
}

// Writes numbers in the ratio of the softmax and returns their sum. The highest logit is looked for
// only where the powers of e would otherwise not fit in a float.
template <typename Wide, typename T>
DETRX_INLINE float softmax_row(const T* from, std::int64_t count, float* to) {
  using Floats = typename Wide::Floats;
  const float sum = exponentials<Wide>(from, count, Floats{}, to);
  if (sum > 1e-26F && sum < 1e30F) return sum;
  Floats highest = widened<Wide>(from + count - Wide::kCount);
  for (std::int64_t c = 0; c + Wide::kCount <= count; c += Wide::kCount) {
    highest = most(highest, widened<Wide>(from + c));
  }
  return exponentials<Wide>(from, count, -least_lane(-highest), to);
}

// The same for logits that are not adjacent, or few; to has room for as many again.
template <typename Wide, typename T>
DETRX_INLINE float softmax_row(const T* from, std::int64_t step, std::int64_t count, float* to) {
  if (step == 1 && count >= Wide::kCount) return softmax_row<Wide>(from, count, to);
  float* const copy = to + padded(count);
  for (std::int64_t c = 0; c < count; ++c) copy[c] = to_float(from[c * step]);
  std::fill(copy + count, copy + padded(count), -std::numeric_limits<float>::infinity());
  return softmax_row<Wide>(copy, padded(count), to);
}

// Less the probability of each used class, times its weight.
template <typename Wide, typename T>
DETRX_INLINE void softmax_costs(const Problem& p, Scratch& s, std::int64_t classes) {
  const T* const logits = p.first<T>(p.in.logits);
  const auto& stride = p.in.logits.stride;
  const std::int64_t all = p.in.logits.shape[3], pitch = p.pitch();
  float* const row = s.row.reserve(2 * padded(all));
  float* const to = s.class_cost.get();
  const std::int64_t* const used = s.used.get();
  for (std::int64_t q = 0; q < p.queries(); ++q) {
    const float sum = softmax_row<Wide>(logits + q * stride[2], stride[3], all, row);
    const float scale = -p.weights.class_ / sum;
    for (std::int64_t k = 0; k < classes; ++k) to[k * pitch + q] = row[used[k]] * scale;
  }
}

template <typename Wide, typename T>
DETRX_INLINE void class_costs(const Problem& p, Scratch& s) {
  const std::int64_t classes = list_classes(p, s), pitch = p.pitch(), queries = p.queries();
  float* const to = s.class_cost.reserve(classes * pitch);
  if (p.weights.kind == ClassCost::focal) {
    focal_costs<Wide, T>(p, s, classes);
  } else {
    softmax_costs<Wide, T>(p, s, classes);
  }
  for (std::int64_t k = 0; k < classes; ++k) {
    std::fill(to + k * pitch + queries, to + (k + 1) * pitch, kLargest);
  }
}

template <typename Wide, typename T>
DETRX_INLINE void read_boxes(const Problem& p, Scratch& s) {
  using Floats = typename Wide::Floats;
  const std::int64_t pitch = p.pitch(), queries = p.queries();
  const auto& stride = p.in.boxes.stride;
  const T* from = p.first<T>(p.in.boxes);
  float* const to = s.boxes.reserve(9 * pitch);
  for (std::int64_t q = 0; q < queries; ++q, from += stride[2]) {
    for (int side = 0; side < 4; ++side) to[side * pitch + q] = to_float(from[side * stride[3]]);
  }
  for (int side = 0; side < 4; ++side) {
    std::fill(to + side * pitch + queries, to + (side + 1) * pitch, 0.0F);
  }
  for (std::int64_t q = 0; q < pitch; q += Wide::kCount) {
    float* const at = to + q;
    const auto box = box_of(load<Floats>(at), load<Floats>(at + pitch),
                            load<Floats>(at + 2 * pitch), load<Floats>(at + 3 * pitch));
    store(box.x0, at + 4 * pitch);
    store(box.y0, at + 5 * pitch);
    store(box.x1, at + 6 * pitch);
    store(box.y1, at + 7 * pitch);
    store(box.area, at + 8 * pitch);
  }
}

template <typename Floats>
DETRX_INLINE BoxOf<Floats> box_at(const float* at, std::int64_t pitch) {
  const auto plane = [&](int number) __attribute__((always_inline)) {
    return load<Floats>(at + number * pitch);
  };
  return {plane(0), plane(1), plane(2), plane(3), plane(4), plane(5), plane(6), plane(7), plane(8)};
}

// A target's box, the same in every lane.
template <typename Floats>
DETRX_INLINE BoxOf<Floats> target_box(const Problem& p, std::int64_t target) {
  const auto& stride = p.in.truths.stride;
  const float* const from = p.in.truths.data + p.image * stride[0] + target * stride[1];
  return box_of(Floats{} + from[0], Floats{} + from[stride[2]], Floats{} + from[2 * stride[2]],
                Floats{} + from[3 * stride[2]]);
}

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
DETRX_INLINE void prepare_costs(const Problem& p, Scratch& s) {
  s.cost.reserve(p.targets() * p.pitch());
  const Dtype logits = p.in.logits.dtype, boxes = p.in.boxes.dtype;
  if (logits == Dtype::float32) class_costs<Wide, float>(p, s);
  if (logits == Dtype::bfloat16) class_costs<Wide, Bfloat16>(p, s);
  if (logits == Dtype::float16) class_costs<Wide, Half>(p, s);
  if (boxes == Dtype::float32) read_boxes<Wide, float>(p, s);
  if (boxes == Dtype::bfloat16) read_boxes<Wide, Bfloat16>(p, s);
  if (boxes == Dtype::float16) read_boxes<Wide, Half>(p, s);
}

// Writes the query of each target and returns how many costs were not finite.
template <typename Wide>
DETRX_INLINE std::int64_t solve_problem(const Problem& p, Scratch& s, std::int32_t* match) {
  prepare_costs<Wide>(p, s);
  const std::int64_t targets = p.targets(), queries = p.queries(), pitch = p.pitch();
  const bool swapped = targets > queries;
  CostRows rows{s.cost.get(), std::min(targets, queries), std::max(targets, queries),
                swapped ? 1 : pitch, swapped ? pitch : 1};
  const Cheapest cheapest = prepare(s.assign, rows);
  std::int64_t bad = 0;
  if (!write_costs<Wide>(p, s, cheapest)) bad = heal(s.healthy, rows);
  if (swapped || bad > 0) look<Wide>(rows, cheapest);
  solve<Wide>(s.assign, rows);
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
