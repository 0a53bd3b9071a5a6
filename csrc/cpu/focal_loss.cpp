#include "cpu/focal_loss.h"

#include <algorithm>
#include <vector>

#include "core/vector_math.h"
#include "cpu/owners.h"
#include "cpu/parallel.h"
#include "cpu/slopes.h"

namespace detrx::cpu {
namespace {

constexpr const char* kWhere = "focal_loss";

// How many queries one thread takes at a time, and how many logits are worth a thread.
constexpr std::int64_t kQueries = 64;
constexpr std::int64_t kLogits = 1 << 14;

// How many vectors are added up in float32 before the sum goes into a float64.
constexpr std::int64_t kVectors = 32;

template <typename Lanes, bool Square>
DETRX_INLINE void open_negative(const FocalTerms& t, const typename Lanes::Floats& x,
                                typename Lanes::Floats& p, typename Lanes::Floats& softplus,
                                typename Lanes::Floats& weight) {
  using Floats = typename Lanes::Floats;
  Floats log1p;
  sigmoid_log1p<Lanes>(x, p, log1p);
  softplus = log1p + (x < 0 ? Floats{} : x);
  if (Square) {
    weight = t.negative * (p * p);
    return;
  }
  const Floats log_p = (x < 0 ? x : Floats{}) - log1p;
  exp_of_nonpositive<Lanes>(t.gamma * log_p, weight);
  weight *= t.negative;
}

// What stands past the end of the logits: its loss is nothing.
constexpr float kPadding = -1e30F;

// Of cells that are no target's: sums their loss, or writes scale times their slope, or both.
template <typename Item, bool Square, bool Sums, bool Slopes>
struct Negatives {
  template <typename Lanes>
  static DETRX_INLINE double run(const Item* x, std::int64_t count, const FocalTerms& t,
                                 float scale, Item* to) {
    using Floats = typename Lanes::Floats;
    constexpr std::int64_t kCount = Lanes::kCount;
    double total = 0.0;
    std::int64_t i = 0;
    while (i < count) {
      Floats sum{};
      const std::int64_t end = std::min(count, i + kVectors * kCount);
      for (; i < end; i += kCount) {
        Floats at, p, softplus, weight;
        const bool whole = i + kCount <= count;
        if (whole) {
          load_floats<Lanes>(x + i, at);
        } else {
          load_some<Lanes>(x + i, count - i, kPadding, at);
        }
        open_negative<Lanes, Square>(t, at, p, softplus, weight);
        if constexpr (Sums) sum += weight * softplus;
        if constexpr (Slopes) {
          const Floats slope = (scale * weight) * (p + t.through * ((1.0F - p) * softplus));
          if (whole) {
            store_floats<Lanes>(slope, to + i);
          } else {
            store_some<Lanes>(slope, count - i, to + i);
          }
        }
      }
      if constexpr (Sums) total += static_cast<double>(sum_lanes<Lanes>(sum));
    }
    return total;
  }
};

template <typename Item, bool Square, bool Sums, bool Slopes>
using NegativesEntries = Entries<Negatives<Item, Square, Sums, Slopes>, double, const Item*,
                                 std::int64_t, const FocalTerms&, float, Item*>;

template <typename Item, bool Sums, bool Slopes>
auto negatives_of(float gamma) {
  return gamma == 2.0F ? NegativesEntries<Item, true, Sums, Slopes>::best()
                       : NegativesEntries<Item, false, Sums, Slopes>::best();
}

struct Problem {
  Problem(const AnyView<4>& logits, const TensorView<const std::int64_t, 2>& label,
          const TensorView<const std::int32_t, 3>& owner,
          const std::optional<TensorView<const float, 3>>& score, const FocalTerms& given,
          int threads)
      : stages(logits.shape[0]),
        images(logits.shape[1]),
        queries(logits.shape[2]),
        classes(logits.shape[3]),
        targets(label.shape[1]),
        blocks((queries + kQueries - 1) / kQueries),
        labels(label.data),
        owners(kWhere, owner, {stages, images, queries}, targets),
        terms(given) {
    require_device(kWhere, "logits", logits, Device::cpu);
    require(classes <= 1 || logits.stride[3] == 1,
            "[focal_loss] the classes of logits must be adjacent; pass logits.contiguous()");
    require_shape(kWhere, "labels", label, {images, targets});
    require_contiguous(kWhere, "labels", label);
    require(score.has_value() || given.kind == FocalKind::focal,
            "[focal_loss] varifocal and mal must have quality");
    if (score) {
      require_shape(kWhere, "quality", *score, {stages, images, queries});
      quality = *score;
    }
    require(threads >= 1, "[focal_loss] threads must be >= 1, got ", threads);
  }

  std::int64_t tasks() const noexcept { return stages * images * blocks; }

  // Where the logits of a task's queries begin, were they contiguous.
  std::int64_t first_logit(std::int64_t task) const noexcept {
    return (task / blocks * queries + task % blocks * kQueries) * classes;
  }

  std::int64_t label(std::int64_t image, std::int64_t target) const {
    const std::int64_t label = labels[image * targets + target];
    require(label >= 0 && label < classes, "[focal_loss] labels must be in [0, ", classes,
            "), got ", label, " for target ", target, " of image ", image);
    return label;
  }

  float score(std::int64_t stage, std::int64_t image, std::int64_t query) const noexcept {
    if (!quality.data) return 1.0F;
    return quality
        .data[stage * quality.stride[0] + image * quality.stride[1] + query * quality.stride[2]];
  }

  std::int64_t stages, images, queries, classes, targets, blocks;
  const std::int64_t* labels;
  Owners owners;
  TensorView<const float, 3> quality;
  FocalTerms terms;
};

// Calls negatives(first logit, how many, where in the block) and positive(logit, score, where) for
// all cells of one block of queries of one image in one stage.
template <typename Item, typename Negatives, typename Positive>
void visit(const Problem& p, const TensorView<const Item, 4>& logits, std::int64_t task,
           const Negatives& negatives, const Positive& positive) {
  const std::int64_t stage = task / (p.images * p.blocks), image = task / p.blocks % p.images;
  const std::int64_t first = task % p.blocks * kQueries;
  const std::int64_t end = std::min(first + kQueries, p.queries);
  const std::int32_t* const row = p.owners.row(stage, image);
  const std::int64_t step = logits.stride[2];
  const Item* const base = logits.data + stage * logits.stride[0] + image * logits.stride[1];
  for (std::int64_t q = first; q < end; ++q) {
    const std::int64_t owning = Owners::next(row, q, end);
    if (step == p.classes && owning > q) {  // the queries between lie in one piece
      negatives(base + q * step, (owning - q) * p.classes, (q - first) * p.classes);
      q = owning;
    }
    for (; q < owning; ++q) negatives(base + q * step, p.classes, (q - first) * p.classes);
    if (q == end) break;
    const Item* const x = base + q * step;
    const std::int64_t to = (q - first) * p.classes;
    const std::int64_t label = p.label(image, p.owners.target(row, q));
    negatives(x, label, to);
    positive(x[label], p.score(stage, image, q), to + label);
    negatives(x + label + 1, p.classes - label - 1, to + label + 1);
  }
}

// Calls work(task) for all tasks and sums up what it answers.
template <typename Work>
void sum_tasks(const Problem& p, const AnyView<4>& logits, float normaliser,
               const TensorView<float, 1>& sums, int threads, const Work& work) {
  std::vector<double> parts(static_cast<std::size_t>(p.tasks()));
  parallel(p.tasks(), worth(logits.size(), kLogits, threads),
           [&](std::int64_t task) { parts[static_cast<std::size_t>(task)] = work(task); });
  sum_stages(parts, normaliser, sums);
}

void sum_alone(const Problem& p, const AnyView<4>& logits, float normaliser,
               const TensorView<float, 1>& sums, int threads) {
  dispatch_float(logits.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto items = logits.template items<const Item>();
    const auto sum = negatives_of<Item, true, false>(p.terms.gamma);
    sum_tasks(p, logits, normaliser, sums, threads, [&](std::int64_t task) {
      double total = 0.0;
      visit(
          p, items, task,
          [&](const Item* x, std::int64_t count, std::int64_t) {
            total += sum(x, count, p.terms, 0.0F, nullptr);
          },
          [&](Item x, float score, std::int64_t) {
            total += static_cast<double>(focal_positive(p.terms, to_float(x), score).loss);
          });
      return total;
    });
  });
}

void sum_with_slopes(const Problem& p, const AnyView<4>& logits, float normaliser,
                     const TensorView<float, 1>& sums, float* slopes, int threads) {
  const auto items = logits.items<const float>();
  const auto both = negatives_of<float, true, true>(p.terms.gamma);
  const float scale = 1.0F / normaliser;
  sum_tasks(p, logits, normaliser, sums, threads, [&](std::int64_t task) {
    double total = 0.0;
    float* const to = slopes + p.first_logit(task);
    visit(
        p, items, task,
        [&](const float* x, std::int64_t count, std::int64_t where) {
          total += both(x, count, p.terms, scale, to + where);
        },
        [&](float x, float score, std::int64_t where) {
          const Term term = focal_positive(p.terms, x, score);
          total += static_cast<double>(term.loss);
          to[where] = scale * term.slope;
        });
    return total;
  });
}

}  // namespace

void focal_loss(const AnyView<4>& logits, const TensorView<const std::int64_t, 2>& labels,
                const TensorView<const std::int32_t, 3>& owners,
                const std::optional<TensorView<const float, 3>>& quality, FocalKind kind,
                float alpha, float gamma, float normaliser, const TensorView<float, 1>& sums,
                const std::optional<AnyView<4>>& slopes, int threads) {
  const Problem p(logits, labels, owners, quality, focal_terms(kind, alpha, gamma), threads);
  require_shape(kWhere, "sums", sums, {p.stages});
  if (!slopes) return sum_alone(p, logits, normaliser, sums, threads);
  sum_with_slopes(p, logits, normaliser, sums, room_for_slopes(kWhere, *slopes, logits), threads);
}

void focal_loss_backward(const TensorView<const float, 1>& grad, const AnyView<4>& logits,
                         const TensorView<const std::int64_t, 2>& labels,
                         const TensorView<const std::int32_t, 3>& owners,
                         const std::optional<TensorView<const float, 3>>& quality, FocalKind kind,
                         float alpha, float gamma, float normaliser, const AnyView<4>& grad_logits,
                         int threads) {
  const Problem p(logits, labels, owners, quality, focal_terms(kind, alpha, gamma), threads);
  require_shape(kWhere, "grad", grad, {p.stages});
  require_grad(kWhere, "grad_logits", grad_logits, logits);
  dispatch_float(logits.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto items = logits.template items<const Item>();
    Item* const all = grad_logits.template items<Item>().data;
    prefer_large_pages(all, logits.size() * static_cast<std::int64_t>(sizeof(Item)));
    const auto slopes = negatives_of<Item, false, true>(gamma);
    parallel(p.tasks(), worth(logits.size(), kLogits, threads), [&](std::int64_t task) {
      const std::int64_t stage = task / p.blocks / p.images;
      Item* const to = all + p.first_logit(task);
      const float scale = grad.data[stage * grad.stride[0]] / normaliser;
      visit(
          p, items, task,
          [&](const Item* x, std::int64_t count, std::int64_t where) {
            slopes(x, count, p.terms, scale, to + where);
          },
          [&](Item x, float score, std::int64_t where) {
            to[where] = from_float<Item>(scale * focal_positive(p.terms, to_float(x), score).slope);
          });
    });
  });
}

}  // namespace detrx::cpu
