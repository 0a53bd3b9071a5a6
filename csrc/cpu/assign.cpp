#include "cpu/assign.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "core/assign.h"
#include "core/inline.h"
#include "cpu/parallel.h"

namespace detrx::cpu {
namespace {

// Below about this many costs in all, waking another thread takes longer than the work.
constexpr std::int64_t kWorthSharing = 40000;

struct Scratch {
  AssignScratch assign;
  Buffer<float> healthy;  // a copy of the costs in which those that are not finite are replaced
};

struct Arguments {
  TensorView<const float, 3> cost;
  AnyView<1> counts;
  TensorView<std::int64_t, 2> match;

  std::int64_t count(std::int64_t n) const {
    const std::int64_t at = n * counts.stride[0];
    return counts.dtype == Dtype::int32 ? static_cast<const std::int32_t*>(counts.data)[at]
                                        : static_cast<const std::int64_t*>(counts.data)[at];
  }
};

// Returns how many costs were not finite.
template <typename Wide>
DETRX_INLINE std::int64_t solve_problem(const Arguments& a, std::int64_t n, Scratch& scratch) {
  const std::int64_t targets = a.count(n), queries = a.cost.shape[1];
  std::int64_t* const match = a.match.data + n * a.match.stride[0];
  std::fill_n(match, a.match.shape[1], -1);
  if (targets == 0 || queries == 0) return 0;
  const bool swapped = targets > queries;
  CostRows rows{a.cost.data + n * a.cost.stride[0], std::min(targets, queries),
                std::max(targets, queries), a.cost.stride[swapped ? 1 : 2],
                a.cost.stride[swapped ? 2 : 1]};
  AssignScratch& s = scratch.assign;
  const Cheapest cheapest = prepare(s, rows);
  std::int64_t bad = 0;
  if (!look<Wide>(rows, cheapest)) {
    bad = heal(scratch.healthy, rows);
    look<Wide>(rows, cheapest);
  }
  solve<Wide>(s, rows, AllSeen{});
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    const std::int64_t column = s.column[s.slot[row]];
    match[swapped ? column : row] = swapped ? row : column;
  }
  return bad;
}

#if DETRX_X86
DETRX_AVX512 std::int64_t solve_avx512(const Arguments& a, std::int64_t n, Scratch& s) {
  return solve_problem<Avx512Lanes>(a, n, s);
}

DETRX_AVX2 std::int64_t solve_avx2(const Arguments& a, std::int64_t n, Scratch& s) {
  return solve_problem<Avx2Lanes>(a, n, s);
}
#endif

std::int64_t solve_plain(const Arguments& a, std::int64_t n, Scratch& s) {
  return solve_problem<PlainLanes>(a, n, s);
}

std::int64_t solve_best(const Arguments& a, std::int64_t n, Scratch& s) {
#if DETRX_X86
  if (has_avx512()) return solve_avx512(a, n, s);
  if (has_avx2()) return solve_avx2(a, n, s);
#endif
  return solve_plain(a, n, s);
}

void check(const Arguments& a, int threads) {
  const std::int64_t problems = a.cost.shape[0], targets = a.cost.shape[2];
  require(a.counts.dtype == Dtype::int32 || a.counts.dtype == Dtype::int64,
          "[assign] counts must be int32 or int64, got ", text(a.counts.dtype));
  require_device("assign", "counts", a.counts, Device::cpu);
  require_shape("assign", "counts", a.counts, {problems});
  require_shape("assign", "match", a.match, {problems, targets});
  require_contiguous("assign", "match", a.match);
  require(threads >= 1, "[assign] threads must be >= 1, got ", threads);
  for (std::int64_t n = 0; n < problems; ++n) {
    const std::int64_t count = a.count(n);
    require(count >= 0 && count <= targets, "[assign] counts must be in [0, ", targets, "], got ",
            count, " for problem ", n);
  }
}

// The problems with the most targets first, so that no thread ends on a long one.
std::vector<std::int64_t> largest_first(const Arguments& a) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(a.cost.shape[0]));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t x, std::int64_t y) { return a.count(x) > a.count(y); });
  return order;
}

}  // namespace

std::int64_t assign(TensorView<const float, 3> cost, const AnyView<1>& counts,
                    TensorView<std::int64_t, 2> match,
                    const std::optional<TensorView<std::int64_t, 1>>& bad, int threads) {
  const Arguments a{cost, counts, match};
  check(a, threads);
  if (bad) require_shape("assign", "bad", *bad, {cost.shape[0]});
  std::atomic<std::int64_t> total{0};
  const auto solve_one = [&](std::int64_t n) {
    const std::int64_t found = solve_best(a, n, of_this_thread<Scratch>());
    if (bad) bad->data[n * bad->stride[0]] = found;
    if (found > 0) total += found;
  };
  if (threads == 1 || cost.size() < kWorthSharing) {
    for (std::int64_t n = 0; n < cost.shape[0]; ++n) solve_one(n);
  } else {
    const std::vector<std::int64_t> order = largest_first(a);
    parallel(cost.shape[0], threads,
             [&](std::int64_t i) { solve_one(order[static_cast<std::size_t>(i)]); });
  }
  return total;
}

}  // namespace detrx::cpu
