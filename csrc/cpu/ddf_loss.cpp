#include "cpu/ddf_loss.h"

#include <algorithm>
#include <vector>

#include "core/ddf.h"
#include "cpu/owners.h"
#include "cpu/parallel.h"
#include "cpu/slopes.h"
#include "cpu/softmax.h"

namespace detrx::cpu {
namespace {

constexpr const char* kWhere = "ddf_loss";

// How many bins are worth a thread.
constexpr std::int64_t kWorth = 1 << 14;

struct Problem {
  Problem(const AnyView<5>& edges, const TensorView<const float, 2>& confident,
          const TensorView<const std::int32_t, 3>& owner, const TensorView<const float, 3>& weight,
          const TensorView<const float, 2>& count, float temperature, int threads)
      : stages(edges.shape[0]),
        images(edges.shape[1]),
        queries(edges.shape[2]),
        values(edges.shape[4]),
        students(std::max<std::int64_t>(stages - 1, 0)),
        useful(worth(edges.size(), kWorth, threads)),
        stride(edges.stride),
        confidence(confident),
        owners(kWhere, owner, {stages, images, queries}, 0),
        iou(weight),
        scale(1.0F / temperature) {
    require_device(kWhere, "edges", edges, Device::cpu);
    require(edges.shape[3] == 4 && values >= 1,
            "[ddf_loss] edges must have shape (L, B, Q, 4, R + 1), got ", text(edges.shape));
    require(values <= 1 || stride[4] == 1,
            "[ddf_loss] the bins of edges must be adjacent; pass edges.contiguous()");
    require_shape(kWhere, "confidence", confident, {images, queries});
    require_shape(kWhere, "iou", weight, {stages, images, queries});
    require_shape(kWhere, "counts", count, {students, 2});
    require_contiguous(kWhere, "counts", count);
    for (std::int64_t stage = 0; stage < students; ++stage) {
      factors.push_back(ddf_factors(count.data[2 * stage], count.data[2 * stage + 1], temperature));
    }
    require(temperature > 0.0F, "[ddf_loss] temperature must be above 0, got ", temperature);
    require(threads >= 1, "[ddf_loss] threads must be >= 1, got ", threads);
  }

  std::int64_t tasks() const noexcept { return stages ? images * blocks_of(queries) : 0; }

  // The weight of a query's own, and whether it owns a target.
  float weight(std::int64_t stage, std::int64_t image, std::int64_t query, bool owns) const {
    if (owns)
      return iou.data[stage * iou.stride[0] + image * iou.stride[1] + query * iou.stride[2]];
    return confidence.data[image * confidence.stride[0] + query * confidence.stride[1]];
  }

  std::int64_t stages, images, queries, values, students;
  int useful;
  std::array<std::int64_t, 5> stride;
  TensorView<const float, 2> confidence;
  Owners owners;
  TensorView<const float, 3> iou;
  float scale;
  std::vector<DdfFactors> factors;  // of each student
};

// The divergence of a student from the teacher: two rows of count items, of which room may be
// read, and the log_sum of each.
template <typename Item>
struct Divergence {
  template <typename Lanes>
  static DETRX_INLINE float run(const Item* student, const Item* teacher, std::int64_t count,
                                std::int64_t room, float scale, float of_student,
                                float of_teacher) {
    using Floats = typename Lanes::Floats;
    constexpr std::int64_t kCount = Lanes::kCount;
    constexpr float kNone = -1e30F;  // no share, and no difference
    Floats ours, theirs, share, sum{};
    for (std::int64_t i = 0; i < count; i += kCount) {
      if (count - i >= kCount) {
        load_floats<Lanes>(student + i, ours);
        load_floats<Lanes>(teacher + i, theirs);
      } else {
        load_within<Lanes>(student + i, count - i, room - i, kNone, ours);
        load_within<Lanes>(teacher + i, count - i, room - i, kNone, theirs);
      }
      exp_of_nonpositive<Lanes>(theirs * scale - of_teacher, share);
      sum += share * (theirs - ours);
    }
    return sum_lanes<Lanes>(sum) * scale + (of_student - of_teacher);
  }
};

// Writes factor times the student's shares less the teacher's.
template <typename Item>
struct DivergenceSlope {
  template <typename Lanes>
  static DETRX_INLINE void run(const Item* student, const Item* teacher, std::int64_t count,
                               std::int64_t room, float scale, float of_student, float of_teacher,
                               float factor, Item* to) {
    using Floats = typename Lanes::Floats;
    constexpr std::int64_t kCount = Lanes::kCount;
    Floats ours, theirs, share, wanted;
    for (std::int64_t i = 0; i < count; i += kCount) {
      const bool whole = count - i >= kCount;
      if (whole) {
        load_floats<Lanes>(student + i, ours);
        load_floats<Lanes>(teacher + i, theirs);
      } else {
        load_within<Lanes>(student + i, count - i, room - i, 0.0F, ours);
        load_within<Lanes>(teacher + i, count - i, room - i, 0.0F, theirs);
      }
      exp_of_nonpositive<Lanes>(ours * scale - of_student, share);
      exp_of_nonpositive<Lanes>(theirs * scale - of_teacher, wanted);
      const Floats slope = factor * (share - wanted);
      if (whole) {
        store_floats<Lanes>(slope, to + i);
      } else {
        store_some<Lanes>(slope, count - i, to + i);
      }
    }
  }
};

template <typename Item>
using DivergenceEntries = Entries<Divergence<Item>, float, const Item*, const Item*, std::int64_t,
                                  std::int64_t, float, float, float>;
template <typename Item>
using DivergenceSlopeEntries =
    Entries<DivergenceSlope<Item>, void, const Item*, const Item*, std::int64_t, std::int64_t,
            float, float, float, float, Item*>;

// One edge of one query, in all stages.
struct Edge {
  std::int64_t image, query;
  std::int64_t at;    // offset into the edges of a stage
  std::int64_t room;  // how many items may be read there
  std::int64_t row;   // its number among all edges of a stage
};

template <typename Work>
void visit(const Problem& p, std::int64_t task, const Work& work) {
  const auto [none, image, first, end] = block_of(task, p.images, p.queries);
  static_cast<void>(none);  // an edge is read in all stages at once
  for (std::int64_t query = first; query < end; ++query) {
    for (int side = 0; side < 4; ++side) {
      work(Edge{image, query, image * p.stride[1] + query * p.stride[2] + side * p.stride[3],
                p.stride[3] == p.values ? (4 - side) * p.values : p.values,
                4 * (image * p.queries + query) + side});
    }
  }
}

// A stage's sums over queries that own a target, and over the others.
struct Parts {
  double owning = 0.0;
  double other = 0.0;
};

// Adds up the parts (tasks, students), in order.
void sum_parts(const Problem& p, const std::vector<Parts>& parts,
               const TensorView<float, 1>& sums) {
  for (std::int64_t stage = 0; stage < p.students; ++stage) {
    Parts total;
    for (std::int64_t task = 0; task < p.tasks(); ++task) {
      const Parts& part = parts[static_cast<std::size_t>(task * p.students + stage)];
      total.owning += part.owning;
      total.other += part.other;
    }
    const DdfFactors& factors = p.factors[static_cast<std::size_t>(stage)];
    sums.data[stage * sums.stride[0]] =
        static_cast<float>(total.owning * static_cast<double>(factors.owning) +
                           total.other * static_cast<double>(factors.other));
  }
}

}  // namespace

void ddf_loss(const AnyView<5>& edges, const TensorView<const float, 2>& confidence,
              const TensorView<const std::int32_t, 3>& owners,
              const TensorView<const float, 3>& iou, const TensorView<const float, 2>& counts,
              float temperature, const TensorView<float, 1>& sums,
              const TensorView<float, 4>& log_sums, int threads) {
  const Problem p(edges, confidence, owners, iou, counts, temperature, threads);
  require_shape(kWhere, "sums", sums, {p.students});
  require_shape(kWhere, "log_sums", log_sums, {p.stages, p.images, p.queries, 4});
  require_contiguous(kWhere, "log_sums", log_sums);
  std::vector<Parts> parts(static_cast<std::size_t>(p.tasks() * p.students));
  const std::int64_t rows = 4 * p.images * p.queries;
  dispatch_float(edges.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto* const all = edges.template items<const Item>().data;
    const auto log_sum_exp = LogSumExpEntries<Item>::best();
    const auto divergence = DivergenceEntries<Item>::best();
    parallel(p.tasks(), p.useful, [&](std::int64_t task) {
      Parts* const mine = parts.data() + task * p.students;
      visit(p, task, [&](const Edge& edge) {
        const Item* const teacher = all + p.students * p.stride[0] + edge.at;
        const float taught = log_sum_exp(teacher, p.values, edge.room, p.scale);
        log_sums.data[p.students * rows + edge.row] = taught;
        for (std::int64_t stage = 0; stage < p.students; ++stage) {
          const Item* const student = all + stage * p.stride[0] + edge.at;
          const float log_sum = log_sum_exp(student, p.values, edge.room, p.scale);
          log_sums.data[stage * rows + edge.row] = log_sum;
          const bool owns = p.owners.row(stage, edge.image)[edge.query] >= 0;
          const float loss =
              divergence(student, teacher, p.values, edge.room, p.scale, log_sum, taught);
          const float weighed = loss * p.weight(stage, edge.image, edge.query, owns);
          (owns ? mine[stage].owning : mine[stage].other) += static_cast<double>(weighed);
        }
      });
    });
  });
  sum_parts(p, parts, sums);
}

void ddf_loss_backward(const TensorView<const float, 1>& grad, const AnyView<5>& edges,
                       const TensorView<const float, 2>& confidence,
                       const TensorView<const std::int32_t, 3>& owners,
                       const TensorView<const float, 3>& iou,
                       const TensorView<const float, 2>& counts, float temperature,
                       const TensorView<const float, 4>& log_sums, const AnyView<5>& grad_edges,
                       int threads) {
  const Problem p(edges, confidence, owners, iou, counts, temperature, threads);
  require_shape(kWhere, "grad", grad, {p.students});
  require_shape(kWhere, "log_sums", log_sums, {p.stages, p.images, p.queries, 4});
  require_contiguous(kWhere, "log_sums", log_sums);
  require_grad(kWhere, "grad_edges", grad_edges, edges);
  const std::int64_t rows = 4 * p.images * p.queries;
  dispatch_float(edges.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto* const all = edges.template items<const Item>().data;
    Item* const to = grad_edges.template items<Item>().data;
    prefer_large_pages(to, edges.size() * static_cast<std::int64_t>(sizeof(Item)));
    const auto slope = DivergenceSlopeEntries<Item>::best();
    parallel(p.tasks(), p.useful, [&](std::int64_t task) {
      visit(p, task, [&](const Edge& edge) {
        const Item* const teacher = all + p.students * p.stride[0] + edge.at;
        const float taught = log_sums.data[p.students * rows + edge.row];
        Item* const last = to + (p.students * rows + edge.row) * p.values;
        std::fill(last, last + p.values, Item{});
        for (std::int64_t stage = 0; stage < p.students; ++stage) {
          const bool owns = p.owners.row(stage, edge.image)[edge.query] >= 0;
          const DdfFactors& factors = p.factors[static_cast<std::size_t>(stage)];
          const float factor = grad.data[stage * grad.stride[0]] * p.scale *
                               (owns ? factors.owning : factors.other) *
                               p.weight(stage, edge.image, edge.query, owns);
          const std::int64_t row = stage * rows + edge.row;
          slope(all + stage * p.stride[0] + edge.at, teacher, p.values, edge.room, p.scale,
                log_sums.data[row], taught, factor, to + row * p.values);
        }
      });
    });
  });
}

}  // namespace detrx::cpu
