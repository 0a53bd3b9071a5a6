#include "cpu/fgl_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/fgl.h"
#include "cpu/owners.h"
#include "cpu/parallel.h"
#include "cpu/slopes.h"
#include "cpu/softmax.h"

namespace detrx::cpu {
namespace {

constexpr const char* kWhere = "fgl_loss";

// How many queries are worth a thread.
constexpr std::int64_t kWorth = 1 << 12;

struct Problem {
  Problem(const AnyView<5>& edges, const TensorView<const float, 4>& reference,
          const TensorView<const float, 3>& truth, const TensorView<const std::int32_t, 3>& owner,
          const TensorView<const float, 3>& weight, float scale, float up, int threads)
      : stages(edges.shape[0]),
        images(edges.shape[1]),
        queries(edges.shape[2]),
        values(edges.shape[4]),
        targets(truth.shape[1]),
        stride(edges.stride),
        references(reference.data),
        truths(truth.data),
        owners(kWhere, owner, {stages, images, queries}, targets),
        iou(weight),
        reg_scale(scale) {
    require_device(kWhere, "edges", edges, Device::cpu);
    require(edges.shape[3] == 4, "[fgl_loss] edges must have shape (L, B, Q, 4, R + 1), got ",
            text(edges.shape));
    require(values >= 5 && values % 2 == 1 && values < (1 << 20),
            "[fgl_loss] edges must have R + 1 values, R even and >= 4, got ", values);
    require(stride[4] == 1,
            "[fgl_loss] the bins of edges must be adjacent; pass edges.contiguous()");
    require_shape(kWhere, "references", reference, {stages, images, queries, 4});
    require_contiguous(kWhere, "references", reference);
    require_shape(kWhere, "truths", truth, {images, targets, 4});
    require_contiguous(kWhere, "truths", truth);
    require_shape(kWhere, "iou", weight, {stages, images, queries});
    require(threads >= 1, "[fgl_loss] threads must be >= 1, got ", threads);
    const int bins = static_cast<int>(values) - 1;
    for (int bin = 0; bin <= bins; ++bin) {
      offsets.push_back(bin_offset(bin, bins, std::fabs(up * scale)));
    }
  }

  std::int64_t tasks() const noexcept { return stages * images * blocks_of(queries); }

  std::int64_t stages, images, queries, values, targets;
  std::array<std::int64_t, 5> stride;
  const float* references;
  const float* truths;
  Owners owners;
  TensorView<const float, 3> iou;
  float reg_scale;
  std::vector<float> offsets;
};

Box read_box(const float* at) { return {at[0], at[1], at[2], at[3]}; }

// One edge of a query that owns a target.
struct Edge {
  std::int64_t at;    // offset into edges
  std::int64_t room;  // how many items may be read there
  std::int64_t row;   // its number among all edges of all queries of all stages
  Bin bin;
  float weight;
};

template <typename Work>
void visit(const Problem& p, std::int64_t task, const Work& work) {
  const auto [stage, image, first, end] = block_of(task, p.images, p.queries);
  const std::int32_t* const owners = p.owners.row(stage, image);
  const int bins = static_cast<int>(p.values) - 1;
  for (std::int64_t q = first; (q = Owners::next(owners, q, end)) < end; ++q) {
    const std::int64_t row = (stage * p.images + image) * p.queries + q;
    const std::int64_t target = p.owners.target(owners, q);
    const Edges edges =
        edge_offsets(read_box(p.references + 4 * row),
                     read_box(p.truths + (image * p.targets + target) * 4), p.reg_scale);
    const std::int64_t base = stage * p.stride[0] + image * p.stride[1] + q * p.stride[2];
    for (int side = 0; side < 4; ++side) {
      Edge edge{};
      edge.at = base + side * p.stride[3];
      edge.room = p.stride[3] == p.values ? (4 - side) * p.values : p.values;
      edge.row = 4 * row + side;
      edge.bin = find_bin(edges.at[side], p.offsets.data(), bins);
      edge.weight =
          p.iou.data[stage * p.iou.stride[0] + image * p.iou.stride[1] + q * p.iou.stride[2]];
      work(edge);
    }
  }
}

}  // namespace

void fgl_loss(const AnyView<5>& edges, const TensorView<const float, 4>& references,
              const TensorView<const float, 3>& truths,
              const TensorView<const std::int32_t, 3>& owners,
              const TensorView<const float, 3>& iou, float reg_scale, float up, float normaliser,
              const TensorView<float, 1>& sums, int threads) {
  const Problem p(edges, references, truths, owners, iou, reg_scale, up, threads);
  require_shape(kWhere, "sums", sums, {p.stages});
  std::vector<double> parts(static_cast<std::size_t>(p.tasks()));
  dispatch_float(edges.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto* const all = edges.template items<const Item>().data;
    const auto log_sum_exp = LogSumExpEntries<Item>::best();
    const int useful = worth(p.stages * p.images * p.queries, kWorth, threads);
    parallel(p.tasks(), useful, [&](std::int64_t task) {
      double total = 0.0;
      visit(p, task, [&](const Edge& edge) {
        const Item* const x = all + edge.at;
        const float log_sum = log_sum_exp(x, p.values, edge.room, 1.0F);
        const float left = log_sum - to_float(x[edge.bin.left]);
        const float right = log_sum - to_float(x[edge.bin.left + 1]);
        const float loss = left * (1.0F - edge.bin.share) + right * edge.bin.share;
        total += static_cast<double>(edge.weight * loss);
      });
      parts[static_cast<std::size_t>(task)] = total;
    });
  });
  sum_stages(parts, normaliser, sums);
}

void fgl_loss_backward(const TensorView<const float, 1>& grad, const AnyView<5>& edges,
                       const TensorView<const float, 4>& references,
                       const TensorView<const float, 3>& truths,
                       const TensorView<const std::int32_t, 3>& owners,
                       const TensorView<const float, 3>& iou, float reg_scale, float up,
                       float normaliser, const AnyView<5>& grad_edges, int threads) {
  const Problem p(edges, references, truths, owners, iou, reg_scale, up, threads);
  require_shape(kWhere, "grad", grad, {p.stages});
  require_grad(kWhere, "grad_edges", grad_edges, edges);
  dispatch_float(edges.dtype, [&](auto type) {
    using Item = typename decltype(type)::type;
    const auto* const all = edges.template items<const Item>().data;
    Item* const to = grad_edges.template items<Item>().data;
    prefer_large_pages(to, edges.size() * static_cast<std::int64_t>(sizeof(Item)));
    const auto log_sum_exp = LogSumExpEntries<Item>::best();
    const auto scaled_softmax = ScaledSoftmaxEntries<Item>::best();
    const int useful = worth(p.stages * p.images * p.queries, kWorth, threads);
    parallel(p.tasks(), useful, [&](std::int64_t task) {
      const auto [stage, image, first, end] = block_of(task, p.images, p.queries);
      Item* const mine = to + (stage * p.images + image) * p.queries * 4 * p.values;
      std::fill(mine + first * 4 * p.values, mine + end * 4 * p.values, Item{});
      const float unit = grad.data[stage * grad.stride[0]] / normaliser;
      visit(p, task, [&](const Edge& edge) {
        const Item* const x = all + edge.at;
        Item* const row = to + edge.row * p.values;
        const float scale = unit * edge.weight;
        const float log_sum = log_sum_exp(x, p.values, edge.room, 1.0F);
        scaled_softmax(x, p.values, edge.room, log_sum, scale, row);
        const float shares[2] = {1.0F - edge.bin.share, edge.bin.share};
        for (int i = 0; i < 2; ++i) {
          const float p_of_bin = std::exp(to_float(x[edge.bin.left + i]) - log_sum);
          row[edge.bin.left + i] = from_float<Item>(scale * (p_of_bin - shares[i]));
        }
      });
    });
  });
}

}  // namespace detrx::cpu
