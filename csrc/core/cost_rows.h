// The costs of one assignment problem as they lie in memory, and the cheapest of each row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/buffer.h"
#include "core/inline.h"
#include "core/lanes.h"

namespace detrx {

// What a cost that is not finite counts as. Larger values would drown the potentials of the rest.
constexpr float kSentinel = 1e6F;

// Row i, column j lies at data[i * row_step + j * column_step]. All finite; rows <= columns.
struct CostRows {
  const float* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_step = 0;
  std::int64_t column_step = 0;
};

// The cheapest column of each row.
struct Cheapest {
  float* cost;
  std::int32_t* column;
};

// Finds the cheapest column of each row along the rows, whose columns are adjacent. False when a
// cost is not finite.
template <typename Wide>
DETRX_INLINE bool look_along(const CostRows& rows, Cheapest to) {
  using Floats = typename Wide::Floats;
  using Ints = typename Wide::Ints;
  constexpr int kCount = Wide::kCount;
  Floats sick{};  // zeros, or NaN
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    const float* const cost = rows.data + row * rows.row_step;
    Found<Floats, Ints> best{Floats{} + std::numeric_limits<float>::infinity(), Ints{}};
    std::int64_t j = 0;
    const auto look = [&]() __attribute__((always_inline)) {
      const Floats value = load<Floats>(cost + j);
      sick += value * 0.0F;
      const Ints nearer = value < best.value;
      best.value = nearer ? value : best.value;
      best.place = nearer ? counting<Ints>() + static_cast<std::int32_t>(j) : best.place;
    };
    for (; j + kCount <= rows.columns; j += kCount) look();
    if (j < rows.columns) {
      j = rows.columns - kCount;
      look();
    }
    const auto found = lowest(best);
    to.cost[row] = found.value;
    to.column[row] = found.place;
  }
  bool healthy = true;
  for (int lane = 0; lane < kCount; ++lane) healthy &= sick[lane] == 0.0F;
  return healthy;
}

// The same across the columns, whose rows are adjacent: kBlocks times Wide::kCount rows at a time,
// from the first one on. The last block goes back as far as it needs.
template <typename Wide, int kBlocks>
DETRX_INLINE bool look_across(const CostRows& rows, Cheapest to, std::int64_t first) {
  using Floats = typename Wide::Floats;
  using Ints = typename Wide::Ints;
  std::int64_t start[kBlocks];
  Floats best[kBlocks], sick{};
  Ints place[kBlocks];
  for (int block = 0; block < kBlocks; ++block) {
    start[block] = std::min(first + block * Wide::kCount, rows.rows - Wide::kCount);
    best[block] = Floats{} + std::numeric_limits<float>::infinity();
    place[block] = Ints{};
  }
  const float* cost = rows.data;
  for (std::int64_t j = 0; j < rows.columns; ++j, cost += rows.column_step) {
    for (int block = 0; block < kBlocks; ++block) {
      const Floats value = load<Floats>(cost + start[block]);
      sick += value * 0.0F;
      const Ints nearer = value < best[block];
      best[block] = nearer ? value : best[block];
      place[block] = nearer ? Ints{} + static_cast<std::int32_t>(j) : place[block];
    }
  }
  for (int block = 0; block < kBlocks; ++block) {
    store(best[block], &to.cost[start[block]]);
    store(place[block], &to.column[start[block]]);
  }
  bool healthy = true;
  for (int lane = 0; lane < Wide::kCount; ++lane) healthy &= sick[lane] == 0.0F;
  return healthy;
}

// Covers all rows, reading the costs as few times as registers allow.
template <typename Wide>
DETRX_INLINE bool look_across(const CostRows& rows, Cheapest to) {
  constexpr int kCount = Wide::kCount;
  bool healthy = true;
  std::int64_t row = 0;
  for (; rows.rows - row > 2 * kCount; row += 4 * kCount) {
    healthy &= look_across<Wide, 4>(rows, to, row);
  }
  if (rows.rows - row > kCount) return look_across<Wide, 2>(rows, to, row) && healthy;
  if (rows.rows > row) healthy &= look_across<Wide, 1>(rows, to, row);
  return healthy;
}

// The same however the costs lie.
inline bool look_about(const CostRows& rows, Cheapest to) {
  bool healthy = true;
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    const float* cost = rows.data + row * rows.row_step;
    float best = std::numeric_limits<float>::infinity();
    std::int32_t place = 0;
    for (std::int64_t j = 0; j < rows.columns; ++j, cost += rows.column_step) {
      healthy &= std::fabs(*cost) <= std::numeric_limits<float>::max();
      if (*cost < best) {
        best = *cost;
        place = static_cast<std::int32_t>(j);
      }
    }
    to.cost[row] = best;
    to.column[row] = place;
  }
  return healthy;
}

// Sets the cheapest column of each row. False when a cost is not finite.
template <typename Wide>
DETRX_INLINE bool look(const CostRows& rows, Cheapest to) {
  if (rows.column_step == 1 && rows.columns >= Wide::kCount) return look_along<Wide>(rows, to);
  if (rows.row_step == 1 && rows.rows >= Wide::kCount) return look_across<Wide>(rows, to);
  if (rows.row_step == 1 && rows.rows >= PlainLanes::kCount) {
    return look_across<PlainLanes>(rows, to);
  }
  return look_about(rows, to);
}

// Copies the costs, replacing what is not finite, and counts that.
inline std::int64_t heal(Buffer<float>& to, CostRows& rows) {
  std::int64_t bad = 0;
  float* const healthy = to.reserve(rows.rows * rows.columns);
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    for (std::int64_t j = 0; j < rows.columns; ++j) {
      const float cost = rows.data[row * rows.row_step + j * rows.column_step];
      const bool finite = std::fabs(cost) <= std::numeric_limits<float>::max();
      healthy[row * rows.columns + j] = finite ? cost : kSentinel;
      bad += finite ? 0 : 1;
    }
  }
  rows.data = healthy;
  rows.row_step = rows.columns;
  rows.column_step = 1;
  return bad;
}

}  // namespace detrx
