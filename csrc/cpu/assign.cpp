#include "cpu/assign.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/assign.h"
#include "core/inline.h"
#include "cpu/parallel.h"

namespace detrx::cpu {
namespace {

// What a cost that is not finite counts as. Larger values would drown the potentials of the rest.
constexpr float kSentinel = 1e6F;

// Below about this many costs in all, waking another thread takes longer than the work.
constexpr std::int64_t kWorthSharing = 20000;

struct Arguments {
  TensorView<const float, 3> cost;
  TensorView<const std::int32_t, 1> counts;
  TensorView<std::int64_t, 2> match;
  TensorView<std::int64_t, 1> bad;

  std::int64_t count(std::int64_t n) const { return counts.data[n * counts.stride[0]]; }
};

// Copies one row, replacing what is not finite, and notes the least cost and where it first stands.
// Returns how many were replaced.
DETRX_INLINE std::int64_t read_row(AssignScratch& s, std::int64_t row, const float* from,
                                   std::int64_t step) {
  float* const to = &s.cost[static_cast<std::size_t>(row * s.pitch)];
  if (step == 1) {
    std::copy(from, from + s.columns, to);
  } else {
    for (std::int64_t j = 0; j < s.columns; ++j) to[j] = from[j * step];
  }
  std::fill(to + s.columns, to + s.pitch, std::numeric_limits<float>::infinity());
  std::int64_t replaced = 0;
  for (std::int64_t j = 0; j < s.columns; ++j) {
    const bool finite = std::fabs(to[j]) <= std::numeric_limits<float>::max();
    replaced += finite ? 0 : 1;
    to[j] = finite ? to[j] : kSentinel;
  }
  float least[kPad];
  std::copy(to, to + kPad, least);
  for (std::int64_t j = kPad; j < s.pitch; j += kPad) {
    for (int lane = 0; lane < kPad; ++lane) least[lane] = std::min(least[lane], to[j + lane]);
  }
  const float lowest = *std::min_element(least, least + kPad);
  s.gain[static_cast<std::size_t>(row)] = lowest;
  s.nearest[static_cast<std::size_t>(row)] = std::find(to, to + s.columns, lowest) - to;
  return replaced;
}

template <typename Lanes>
DETRX_INLINE void solve_problem(const Arguments& a, std::int64_t n, AssignScratch& s) {
  const std::int64_t targets = a.count(n), queries = a.cost.shape[2];
  std::int64_t* const match = a.match.data + n * a.match.stride[0];
  std::fill(match, match + a.match.shape[1], -1);
  a.bad.data[n * a.bad.stride[0]] = 0;
  if (targets == 0 || queries == 0) return;
  const bool swapped = targets > queries;
  s.resize(swapped ? queries : targets, swapped ? targets : queries);
  const float* const from = a.cost.data + n * a.cost.stride[0];
  const std::int64_t row_step = a.cost.stride[swapped ? 2 : 1];
  const std::int64_t column_step = a.cost.stride[swapped ? 1 : 2];
  std::int64_t bad = 0;
  for (std::int64_t row = 0; row < s.rows; ++row) {
    bad += read_row(s, row, from + row * row_step, column_step);
  }
  a.bad.data[n * a.bad.stride[0]] = bad;
  solve<Lanes>(s);
  for (std::int64_t row = 0; row < s.rows; ++row) {
    const std::int64_t column = s.column[static_cast<std::size_t>(row)];
    match[swapped ? column : row] = swapped ? row : column;
  }
}

#if DETRX_X86
DETRX_AVX2 void solve_avx2(const Arguments& a, std::int64_t n, AssignScratch& s) {
  solve_problem<FourLanes>(a, n, s);
}
#endif

void solve_plain(const Arguments& a, std::int64_t n, AssignScratch& s) {
  solve_problem<TwoLanes>(a, n, s);
}

void solve_best(const Arguments& a, std::int64_t n, AssignScratch& s) {
#if DETRX_X86
  if (has_avx2()) return solve_avx2(a, n, s);
#endif
  solve_plain(a, n, s);
}

void check(const Arguments& a, int threads) {
  const std::int64_t problems = a.cost.shape[0], targets = a.cost.shape[1];
  require_shape("assign", "counts", a.counts, {problems});
  require_shape("assign", "match", a.match, {problems, targets});
  require_shape("assign", "bad", a.bad, {problems});
  require_contiguous("assign", "match", a.match);
  require(threads >= 1, "[assign] threads must be >= 1, got ", threads);
  for (std::int64_t n = 0; n < problems; ++n) {
    require(a.count(n) >= 0 && a.count(n) <= targets, "[assign] counts must be in [0, ", targets,
            "], got ", a.count(n), " for problem ", n);
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

void assign(TensorView<const float, 3> cost, TensorView<const std::int32_t, 1> counts,
            TensorView<std::int64_t, 2> match, TensorView<std::int64_t, 1> bad, int threads) {
  const Arguments a{cost, counts, match, bad};
  check(a, threads);
  const std::vector<std::int64_t> order = largest_first(a);
  const int sharers = cost.size() < kWorthSharing ? 1 : threads;
  parallel(cost.shape[0], sharers, [&](std::int64_t i) {
    static thread_local AssignScratch scratch;
    solve_best(a, order[static_cast<std::size_t>(i)], scratch);
  });
}

}  // namespace detrx::cpu
