// Optimal assignment of one problem by one block: shortest augmenting paths with float64 potentials
// as in core/assign.h, in the same order and with the same ties, so that the CPU and the GPU give
// the same match for the same costs. Float64, because float32 potentials move other targets of
// equal cost about, and mis-assign healthy ones in a problem that holds a sentinel.
#pragma once

#include <cstdint>

#include "cuda/assignment.h"
#include "cuda/block.h"

namespace detrx::cuda {

// What a cost that is not finite counts as; see cpu/assign.cpp.
constexpr float kSentinel = 1e6F;

// Rows are targets and columns queries, or the other way round where targets outnumber queries.
struct Tables {
  double* gain;            // rows: the potential of a row
  double* price;           // columns: the potential of a column; only where registers do not do
  double* distance;        // columns: likewise
  std::int32_t* column;    // rows: the column that a row has, or -1
  std::int32_t* owner;     // columns: the row that has a column, or -1
  std::int32_t* before;    // columns: the row before a column on its path
  unsigned char* settled;  // columns: likewise
};

__device__ inline Tables place_tables(unsigned char* memory, std::int32_t rows,
                                      std::int32_t columns, bool registers) {
  Tables t{};
  t.gain = reinterpret_cast<double*>(memory);
  double* after = t.gain + rows;
  if (!registers) {
    t.price = after;
    t.distance = after + columns;
    after += 2 * static_cast<std::int64_t>(columns);
  }
  t.column = reinterpret_cast<std::int32_t*>(after);
  t.owner = t.column + rows;
  t.before = t.owner + columns;
  t.settled = reinterpret_cast<unsigned char*>(t.before + columns);
  return t;
}

// A thread's share of the columns, j = k * threads + thread: in registers for K > 0.
template <int K>
struct Columns {
  double prices[K];
  double distances[K];
  unsigned marks = 0;

  __device__ explicit Columns(const Tables&) {}
  __device__ double& price(int k, int) { return prices[k]; }
  __device__ double& distance(int k, int) { return distances[k]; }
  __device__ bool settled(int k, int) const { return (marks >> k & 1U) != 0; }
  __device__ void open_all(int) { marks = 0; }
  __device__ void settle(std::uint32_t column) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (static_cast<unsigned>(k) * blockDim.x + threadIdx.x == column) marks |= 1U << k;
    }
  }

  template <typename Visit>
  __device__ static void each(int columns, Visit visit) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int j = k * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
      if (j < columns) visit(k, j);
    }
  }
};

// Any number of columns, in the workspace.
template <>
struct Columns<0> {
  Tables tables;

  __device__ explicit Columns(const Tables& t) : tables(t) {}
  __device__ double& price(int, int j) { return tables.price[j]; }
  __device__ double& distance(int, int j) { return tables.distance[j]; }
  __device__ bool settled(int, int j) const { return tables.settled[j] != 0; }
  __device__ void open_all(int columns) {
    each(columns, [this](int, int j) { tables.settled[j] = 0; });
  }
  __device__ void settle(std::uint32_t column) {
    if (column % blockDim.x == threadIdx.x) tables.settled[column] = 1;
  }

  template <typename Visit>
  __device__ static void each(int columns, Visit visit) {
    for (int j = static_cast<int>(threadIdx.x); j < columns; j += static_cast<int>(blockDim.x)) {
      visit(0, j);
    }
  }
};

// The costs of one problem.
struct Costs {
  const float* data;
  std::int32_t rows, columns;
  std::int64_t row_step, column_step;

  __device__ float raw(int row, int column) const {
    return data[row * row_step + column * column_step];
  }
  __device__ static bool finite(float cost) { return fabsf(cost) <= 3.402823466e38F; }
  __device__ float operator()(int row, int column) const {
    const float cost = raw(row, column);
    return finite(cost) ? cost : kSentinel;
  }
};

// Whole numbers in the order of the floats; the two zeros are one.
__device__ inline std::uint32_t ordered(float value) {
  const auto bits = static_cast<std::uint32_t>(__float_as_int(value + 0.0F));
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
__device__ inline float unordered(std::uint32_t key) {
  return __int_as_float(static_cast<int>((key & 0x80000000U) != 0 ? key & 0x7fffffffU : ~key));
}
__device__ inline std::uint64_t ordered(double value) {
  constexpr std::uint64_t kSign = 0x8000000000000000U;
  const auto bits = static_cast<std::uint64_t>(__double_as_longlong(value + 0.0));
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}
__device__ inline double unordered(std::uint64_t key) {
  constexpr std::uint64_t kSign = 0x8000000000000000U;
  return __longlong_as_double(static_cast<long long>((key & kSign) != 0 ? key & ~kSign : ~key));
}

struct Nearest {
  std::uint64_t key;  // of the distance
  std::uint32_t column;
};

__device__ inline bool nearer(const Nearest& a, const Nearest& b) {
  return a.key < b.key || (a.key == b.key && a.column < b.column);
}

// The nearest of a block in every thread; the lowest column among equals. `turn` counts the calls.
__device__ inline Nearest block_nearest(Nearest mine, unsigned turn) {
  __shared__ Nearest slots[2][kMostThreads / kWarp];
  const auto high = static_cast<std::uint32_t>(mine.key >> 32);
  const auto low = static_cast<std::uint32_t>(mine.key);
  const std::uint32_t best_high = warp_min(high);
  const std::uint32_t best_low = warp_min(high == best_high ? low : ~0U);
  const bool best = high == best_high && low == best_low;
  const std::uint32_t column = warp_min(best ? mine.column : ~0U);
  Nearest found{static_cast<std::uint64_t>(best_high) << 32 | best_low, column};
  const unsigned warps = blockDim.x / kWarp;
  // Two rows of slots in turn: who is late to read one row meets the next barrier before it is
  // written again.
  if (threadIdx.x % kWarp == 0) slots[turn % 2][threadIdx.x / kWarp] = found;
  __syncthreads();
  for (unsigned warp = 0; warp < warps; ++warp) {
    const Nearest other = slots[turn % 2][warp];
    if (nearer(other, found)) found = other;
  }
  return found;
}

// The least cost of each row and where it first stands, one warp a row; answers how many costs of
// this lane were not finite.
__device__ inline std::int32_t find_row_minima(const Costs& cost, const Tables& t) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  std::int32_t bad = 0;
  for (int row = static_cast<int>(threadIdx.x) / kWarp; row < cost.rows;
       row += static_cast<int>(blockDim.x) / kWarp) {
    std::uint32_t key = ~0U, column = ~0U;
    for (int j = lane; j < cost.columns; j += kWarp) {
      const float raw = cost.raw(row, j);
      const bool good = Costs::finite(raw);
      const std::uint32_t here = ordered(good ? raw : kSentinel);
      bad += good ? 0 : 1;
      if (here < key) {
        key = here;
        column = static_cast<std::uint32_t>(j);
      }
    }
    const std::uint32_t least = warp_min(key);
    column = warp_min(key == least ? column : ~0U);
    if (lane == 0) {
      t.gain[row] = static_cast<double>(unordered(least));
      t.column[row] = static_cast<std::int32_t>(column);
      atomicMin(&t.owner[column], row);
    }
  }
  return bad;
}

// Gives each row its nearest column where no earlier row wants it, which on a trained network
// settles most rows.
__device__ inline std::int32_t settle_greedily(const Costs& cost, const Tables& t) {
  constexpr std::int32_t kNobody = 0x7fffffff;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  for (int j = thread; j < cost.columns; j += threads) t.owner[j] = kNobody;
  __syncthreads();
  const std::int32_t bad = find_row_minima(cost, t);
  __syncthreads();
  for (int row = thread; row < cost.rows; row += threads) {
    if (t.owner[t.column[row]] != row) t.column[row] = -1;
  }
  __syncthreads();
  for (int j = thread; j < cost.columns; j += threads) {
    if (t.owner[j] == kNobody) t.owner[j] = -1;
  }
  __syncthreads();
  return bad;
}

struct Path {
  std::uint32_t end;  // its free column
  double length;
};

// A shortest path from a free row to a free column. There is one, for columns are no fewer than
// rows; every turn but the last settles a column that a row has, so there are at most rows turns.
template <int K>
__device__ inline Path search(const Costs& cost, const Tables& t, Columns<K>& mine, int start,
                              unsigned& turn) {
  const double infinity = __longlong_as_double(0x7ff0000000000000LL);
  mine.open_all(cost.columns);
  mine.each(cost.columns, [&](int k, int j) { mine.distance(k, j) = infinity; });
  double reached = 0.0;
  for (int row = start;;) {
    const double base = reached - t.gain[row];
    Nearest best{~0ULL, ~0U};
    mine.each(cost.columns, [&](int k, int j) {
      if (mine.settled(k, j)) return;
      const double through = static_cast<double>(cost(row, j)) + base - mine.price(k, j);
      if (through < mine.distance(k, j)) {
        mine.distance(k, j) = through;
        t.before[j] = row;
      }
      const Nearest here{ordered(mine.distance(k, j)), static_cast<std::uint32_t>(j)};
      if (nearer(here, best)) best = here;
    });
    best = block_nearest(best, turn++);
    reached = unordered(best.key);
    const std::int32_t owner = t.owner[best.column];
    if (owner < 0) return {best.column, reached};
    mine.settle(best.column);
    row = owner;
  }
}

// Gives a free row a column, moving other rows along the shortest path.
template <int K>
__device__ inline void augment(const Costs& cost, const Tables& t, Columns<K>& mine, int start,
                               unsigned& turn) {
  const Path path = search(cost, t, mine, start, turn);
  mine.each(cost.columns, [&](int k, int j) {
    if (!mine.settled(k, j)) return;
    const double change = path.length - mine.distance(k, j);
    t.gain[t.owner[j]] += change;
    mine.price(k, j) -= change;
  });
  if (threadIdx.x == 0) t.gain[start] += path.length;
  __syncthreads();
  if (threadIdx.x == 0) {
    auto column = static_cast<std::int32_t>(path.end);
    for (std::int32_t row = -1; row != start;) {
      row = t.before[column];
      t.owner[column] = row;
      const std::int32_t left = t.column[row];
      t.column[row] = column;
      column = left;
    }
  }
  __syncthreads();
}

// Solves problem blockIdx.x. `memory` holds its tables.
template <int K>
__device__ inline void solve(const Assignment& p, unsigned char* memory) {
  __shared__ std::int32_t all_bad;
  const std::int64_t n = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const std::int32_t given = p.counts[n % p.images];
  const std::int32_t targets = given < 0 ? 0 : given > p.targets ? p.targets : given;
  const bool swapped = targets > p.queries;
  const float* const data = p.cost + n * p.targets * p.queries;
  const Costs cost{data, swapped ? p.queries : targets, swapped ? targets : p.queries,
                   swapped ? 1 : p.queries, swapped ? p.queries : 1};
  std::int32_t* const match = p.match + n * p.targets;
  const Tables t = place_tables(memory, cost.rows, cost.columns, K > 0);
  if (thread == 0) all_bad = 0;
  const std::int32_t bad = settle_greedily(cost, t);
  if (bad != 0) atomicAdd(&all_bad, bad);
  Columns<K> mine(t);
  mine.each(cost.columns, [&](int k, int j) { mine.price(k, j) = 0.0; });
  unsigned turn = 0;
  for (int row = 0; row < cost.rows; ++row) {
    if (t.column[row] < 0) augment(cost, t, mine, row, turn);
  }
  __syncthreads();
  if (thread == 0) p.bad[n] = all_bad;
  for (int i = thread; i < p.targets; i += threads) {
    match[i] = i >= targets ? -1 : swapped ? t.owner[i] : t.column[i];
  }
}

}  // namespace detrx::cuda
