#include "cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/owners.h"
#include "cpu/parallel.h"
#include "cpu/slopes.h"
#include "cpu/softmax.h"

namespace detrx::cpu {
namespace {

constexpr const char* kWhere = "cross_entropy";

// How many logits are worth a thread.
constexpr std::int64_t kLogits = 1 << 14;

// Stands in for a sum of weights of zero.
constexpr float kTinyWeight = 1e-12F;

struct Problem {
  Problem(const AnyView<4>& logits, const TensorView<const std::int64_t, 2>& label,
          const TensorView<const std::int32_t, 3>& owner, float weight_of_none, int threads)
      : stages(logits.shape[0]),
        images(logits.shape[1]),
        queries(logits.shape[2]),
        classes(logits.shape[3]),
        targets(label.shape[1]),
        stride(logits.stride),
        labels(label.data),
        owners(kWhere, owner, {stages, images, queries}, targets),
        no_object(weight_of_none) {
    require_device(kWhere, "logits", logits, Device::cpu);
    require(classes >= 1, "[cross_entropy] logits must have a last class for no object, got none");
    require(classes <= 1 || stride[3] == 1,
            "[cross_entropy] the classes of logits must be adjacent; pass logits.contiguous()");
    require_shape(kWhere, "labels", label, {images, targets});
    require_contiguous(kWhere, "labels", label);
    require(threads >= 1, "[cross_entropy] threads must be >= 1, got ", threads);
  }

  std::int64_t tasks() const noexcept { return stages * images * blocks_of(queries); }

  std::int64_t label(std::int64_t image, std::int64_t target) const {
    const std::int64_t label = labels[image * targets + target];
    require(label >= 0 && label < classes - 1, "[cross_entropy] labels must be in [0, ",
            classes - 1, "), got ", label, " for target ", target, " of image ", image);
    return label;
  }

  std::int64_t stages, images, queries, classes, targets;
  std::array<std::int64_t, 4> stride;
  const std::int64_t* labels;
  Owners owners;
  float no_object;
};

// One query: where its logits lie, and what they are taught.
struct Query {
  std::int64_t at;    // offset into logits
  std::int64_t room;  // how many items may be read there
  std::int64_t row;   // its number among all queries of all stages
  std::int64_t wanted;
  float weight;
};

template <typename Work>
void visit(const Problem& p, std::int64_t task, const Work& work) {
  const auto [stage, image, first, end] = block_of(task, p.images, p.queries);
  const std::int32_t* const owners = p.owners.row(stage, image);
  const bool whole = p.stride[2] == p.classes;
  for (std::int64_t q = first; q < end; ++q) {
    Query query{};
    query.at = stage * p.stride[0] + image * p.stride[1] + q * p.stride[2];
    query.room = whole ? (p.queries - q) * p.classes : p.classes;
    query.row = (stage * p.images + image) * p.queries + q;
    query.wanted = p.classes - 1;
    query.weight = p.no_object;
    if (owners[q] >= 0) {
      query.wanted = p.label(image, p.owners.target(owners, q));
      query.weight = 1.0F;
    }
    work(query);
  }
}

// The sum of the weights of each stage.
void weigh(const Problem& p, const TensorView<float, 1>& weights) {
  for (std::int64_t stage = 0; stage < p.stages; ++stage) {
    std::int64_t owning = 0;
    for (std::int64_t image = 0; image < p.images; ++image) {
      const std::int32_t* const row = p.owners.row(stage, image);
      owning +=
          std::count_if(row, row + p.queries, [](std::int32_t target) { return target >= 0; });
    }
    const auto none = static_cast<double>(p.images * p.queries - owning);
    const double sum = static_cast<double>(owning) + static_cast<double>(p.no_object) * none;
    weights.data[stage * weights.stride[0]] = std::max(static_cast<float>(sum), kTinyWeight);
  }
}

// Calls measure(query, stage), which answers the log-sum-exp of the query's logits, for all queries
// of one task; notes it, and sums the losses.
template <typename Item, typename Measure>
double sum_block(const Problem& p, const Item* x, const TensorView<float, 3>& log_sums,
                 std::int64_t task, const Measure& measure) {
  double loss = 0.0;
  visit(p, task, [&](const Query& q) {
    const float log_sum = measure(q);
    log_sums.data[q.row] = log_sum;
    loss += static_cast<double>(q.weight * (log_sum - to_float(x[q.at + q.wanted])));
  });
  return loss;
}

}  // namespace

void cross_entropy(const AnyView<4>& logits, const TensorView<const std::int64_t, 2>& labels,
                   const TensorView<const std::int32_t, 3>& owners, float no_object,
                   const TensorView<float, 1>& means, const TensorView<float, 3>& log_sums,
                   const TensorView<float, 1>& weights, const std::optional<AnyView<4>>& slopes,
                   int threads) {
  const Problem p(logits, labels, owners, no_object, threads);
  require_shape(kWhere, "means", means, {p.stages});
  require_shape(kWhere, "weights", weights, {p.stages});
  require_shape(kWhere, "log_sums", log_sums, {p.stages, p.images, p.queries});
  require_contiguous(kWhere, "log_sums", log_sums);
  weigh(p, weights);
  std::vector<double> losses(static_cast<std::size_t>(p.tasks()));
  const int sharing = worth(logits.size(), kLogits, threads);
  if (slopes) {
    const float* const x = logits.items<const float>().data;
    float* const to = room_for_slopes(kWhere, *slopes, logits);
    const auto softmax = SoftmaxAndLogSumEntries::best();
    parallel(p.tasks(), sharing, [&](std::int64_t task) {
      const std::int64_t stage = block_of(task, p.images, p.queries).stage;
      const float unit = 1.0F / weights.data[stage * weights.stride[0]];
      losses[static_cast<std::size_t>(task)] = sum_block(p, x, log_sums, task, [&](const Query& q) {
        float* const row = to + q.row * p.classes;
        const float log_sum = softmax(x + q.at, p.classes, unit * q.weight, row);
        row[q.wanted] -= unit * q.weight;
        return log_sum;
      });
    });
  } else {
    dispatch_float(logits.dtype, [&](auto type) {
      using Item = typename decltype(type)::type;
      const auto* const x = logits.template items<const Item>().data;
      const auto log_sum_exp = LogSumExpEntries<Item>::best();
      parallel(p.tasks(), sharing, [&](std::int64_t task) {
        losses[static_cast<std::size_t>(task)] = sum_block(
            p, x, log_sums, task,
            [&](const Query& q) { return log_sum_exp(x + q.at, p.classes, q.room, 1.0F); });
      });
    });
  }
  sum_stages(losses, 1.0F, means);
  for (std::int64_t stage = 0; stage < p.stages; ++stage) {
    means.data[stage * means.stride[0]] /= weights.data[stage * weights.stride[0]];
  }
}

void cross_entropy_backward(const TensorView<const float, 1>& grad, const AnyView<4>& logits,
                            const TensorView<const std::int64_t, 2>& labels,
                            const TensorView<const std::int32_t, 3>& owners, float no_object,
                            const TensorView<const float, 3>& log_sums,
                            const TensorView<const float, 1>& weights,
                            const AnyView<4>& grad_logits, int threads) {
  const Problem p(logits, labels, owners, no_object, threads);
  require_shape(kWhere, "grad", grad, {p.stages});
  require_shape(kWhere, "weights", weights, {p.stages});
  require_shape(kWhere, "log_sums", log_sums, {p.stages, p.images, p.queries});
  require_contiguous(kWhere, "log_sums", log_sums);
  require_grad(kWhere, "grad_logits", grad_logits, logits);
  dispatch_float(logits.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto* const x = logits.template items<const Item>().data;
    Item* const to = grad_logits.template items<Item>().data;
    prefer_large_pages(to, logits.size() * static_cast<std::int64_t>(sizeof(Item)));
    const auto scaled_softmax = ScaledSoftmaxEntries<Item>::best();
    parallel(p.tasks(), worth(logits.size(), kLogits, threads), [&](std::int64_t task) {
      const std::int64_t stage = block_of(task, p.images, p.queries).stage;
      const float unit =
          grad.data[stage * grad.stride[0]] / weights.data[stage * weights.stride[0]];
      visit(p, task, [&](const Query& q) {
        const float scale = unit * q.weight, log_sum = log_sums.data[q.row];
        Item* const row = to + q.row * p.classes;
        scaled_softmax(x + q.at, p.classes, q.room, log_sum, scale, row);
        const float share = std::exp(to_float(x[q.at + q.wanted]) - log_sum);
        row[q.wanted] = from_float<Item>(scale * (share - 1.0F));
      });
    });
  });
}

}  // namespace detrx::cpu
