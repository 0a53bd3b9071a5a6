// One assignment problem, solved by shortest augmenting paths with float64 potentials (Jonker and
// Volgenant 1987; rectangular form: Crouse 2016).
//
// A column that no row has yet keeps the potential 0. So a path need only look at the columns that
// are owned, kept side by side in "slots", and at the cheapest free column of each row it meets:
// there are at most as many slots as rows, where columns may be many times more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/buffer.h"
#include "core/cost_rows.h"
#include "core/inline.h"
#include "core/lanes.h"

namespace detrx {

// What one problem needs, kept from problem to problem so that nothing is allocated once the
// largest has been seen.
struct AssignScratch {
  // Rows: the cheapest free column, or one that has been taken since it was looked for.
  Buffer<float> free_cost;
  Buffer<std::int32_t> free_column;

  Buffer<std::int32_t> slot;    // rows: the slot of the column that a row has, or -1
  Buffer<double> gain;          // rows: the potential of a row
  Buffer<std::int32_t> filled;  // rows: how many slots have their cost in slot_cost
  Buffer<float> slot_cost;      // rows x slot_pitch
  // Columns: +inf for one that is owned, else 0, or less for one whose costs are not known yet: by
  // so much they may be lower than they stand.
  Buffer<float> taken;

  Buffer<std::int32_t> column;  // slots: which column this is
  Buffer<std::int32_t> owner;   // slots: the row that has it
  Buffer<double> price;         // slots: the potential of a column, <= 0; -inf for a settled one
  Buffer<double> distance;      // slots: shortest path so far; +inf for a settled one
  Buffer<std::int64_t> before;  // slots: the row before a column on its path

  Buffer<std::int32_t> settled;    // slots whose distance is final, in order
  Buffer<double> settled_at;       // and that distance
  Buffer<double> settled_price;    // and the price before
  Buffer<float> copies;            // rows x width, for rows whose columns are not adjacent
  Buffer<std::uint8_t> is_copied;  // rows

  std::int64_t slots = 0;
  std::int64_t slot_pitch = 0;
};

// The cheapest of width >= Wide::kCount adjacent costs, once each has its mark in `taken` added.
template <typename Wide>
DETRX_INLINE Found<float, std::int32_t> cheapest(const float* cost, const float* taken,
                                                 std::int64_t width) {
  using Floats = typename Wide::Floats;
  using Ints = typename Wide::Ints;
  constexpr int kCount = Wide::kCount;
  Found<Floats, Ints> best{Floats{} + std::numeric_limits<float>::infinity(), Ints{}};
  const auto look = [&](std::int64_t j) __attribute__((always_inline)) {
    const Floats value = load<Floats>(cost + j) + load<Floats>(taken + j);
    const auto nearer = value < best.value;
    best.value = nearer ? value : best.value;
    best.place = nearer ? counting<Ints>() + static_cast<std::int32_t>(j) : best.place;
  };
  std::int64_t j = 0;
  for (; j + kCount <= width; j += kCount) look(j);
  if (j < width) look(width - kCount);
  return lowest(best);
}

// Copies four rows that are adjacent, four columns at a time.
inline void copy_four(const CostRows& rows, std::int64_t first, float* to, std::int64_t width) {
  using Four = PlainLanes::Floats;
  const float* from = rows.data + first;
  std::int64_t j = 0;
  for (; j + 4 <= rows.columns; j += 4) {
    Four square[4];
    for (int k = 0; k < 4; ++k, from += rows.column_step) square[k] = load<Four>(from);
    transpose(square);
    for (int k = 0; k < 4; ++k) store(square[k], to + k * width + j);
  }
  for (; j < rows.columns; ++j, from += rows.column_step) {
    for (int k = 0; k < 4; ++k) to[k * width + j] = from[k];
  }
}

// Copies the row, and its neighbours where they are had for the asking; what is added is +inf.
inline void copy_row(AssignScratch& s, const CostRows& rows, std::int64_t row) {
  const std::int64_t width = padded(rows.columns);
  const bool four = rows.row_step == 1 && rows.rows >= 4;
  const std::int64_t first = four ? std::min(row / 4 * 4, rows.rows - 4) : row;
  float* const to = s.copies.get() + first * width;
  if (four) {
    copy_four(rows, first, to, width);
  } else {
    const float* const from = rows.data + row * rows.row_step;
    for (std::int64_t j = 0; j < rows.columns; ++j) to[j] = from[j * rows.column_step];
  }
  for (std::int64_t k = 0; k < (four ? 4 : 1); ++k) {
    std::fill(to + k * width + rows.columns, to + (k + 1) * width,
              std::numeric_limits<float>::infinity());
    s.is_copied[first + k] = 1;
  }
}

// The row's costs side by side, at least Wide::kCount of them.
template <typename Wide>
DETRX_INLINE const float* adjacent(AssignScratch& s, const CostRows& rows, std::int64_t row) {
  if (rows.column_step == 1 && rows.columns >= Wide::kCount) {
    return rows.data + row * rows.row_step;
  }
  if (!s.is_copied[row]) copy_row(s, rows, row);
  return s.copies.get() + row * padded(rows.columns);
}

// Of problems whose costs are all known: reveal(column) answers that nothing was to be found out.
struct AllSeen {
  DETRX_INLINE bool reveal(std::int32_t) { return false; }
};

// Looks again for the cheapest free column of a row.
template <typename Wide, typename Unseen>
DETRX_INLINE void refresh(AssignScratch& s, const CostRows& rows, std::int64_t row,
                          Unseen& unseen) {
  const std::int64_t width = std::max<std::int64_t>(rows.columns, Wide::kCount);
  Found<float, std::int32_t> found;
  do {
    found = cheapest<Wide>(adjacent<Wide>(s, rows, row), s.taken.get(), width);
  } while (unseen.reveal(found.place));
  s.free_cost[row] = found.value;
  s.free_column[row] = found.place;
}

// Makes room for a problem. The caller then writes the cheapest column of each row; there is also
// room for the cheapest row of each column.
inline Cheapest prepare(AssignScratch& s, const CostRows& rows) {
  const std::int64_t n = rows.rows, m = padded(rows.columns);
  s.slots = 0;
  s.slot_pitch = padded(n);
  std::fill_n(s.slot.reserve(n), n, -1);
  std::fill_n(s.taken.reserve(m), m, 0.0F);
  s.column.reserve(n);
  s.owner.reserve(n);
  return {s.free_cost.reserve(m), s.free_column.reserve(m)};
}

// Makes room for the paths; not needed where each row gets the column that it likes best.
inline void prepare_paths(AssignScratch& s, const CostRows& rows) {
  const std::int64_t n = rows.rows, pitch = s.slot_pitch;
  for (std::int64_t row = 0; row < n; ++row) s.gain.reserve(n)[row] = s.free_cost[row];
  std::fill_n(s.filled.reserve(n), n, 0);
  s.slot_cost.reserve(n * pitch);
  double* const price = s.price.reserve(pitch);
  std::fill_n(price, pitch, -std::numeric_limits<double>::infinity());
  std::fill_n(price, s.slots, 0.0);
  s.distance.reserve(pitch);
  s.before.reserve(pitch);
  s.settled.reserve(n);
  s.settled_at.reserve(n);
  s.settled_price.reserve(n);
  s.copies.reserve(n * padded(rows.columns));
  std::fill_n(s.is_copied.reserve(n), n, std::uint8_t{0});
}

// Makes a free column the row's; its price is still to be set.
inline std::int64_t own(AssignScratch& s, std::int64_t row, std::int32_t column) {
  const std::int64_t slot = s.slots++;
  s.column[slot] = column;
  s.owner[slot] = static_cast<std::int32_t>(row);
  s.slot[row] = static_cast<std::int32_t>(slot);
  s.taken[column] = std::numeric_limits<float>::infinity();
  return slot;
}

// Reads the costs of the slots that are new to a row.
DETRX_INLINE void fill(AssignScratch& s, const CostRows& rows, std::int64_t row) {
  const float* const from = rows.data + row * rows.row_step;
  float* const to = s.slot_cost.get() + row * s.slot_pitch;
  const std::int32_t* const column = s.column.get();
  for (std::int64_t k = s.filled[row]; k < s.slots; ++k) to[k] = from[column[k] * rows.column_step];
  s.filled[row] = static_cast<std::int32_t>(s.slots);
}

// Lets every open slot be reached through row, and finds the nearest one.
template <typename Wide, bool kFirst>
DETRX_INLINE Found<double, std::int64_t> scan(AssignScratch& s, std::int64_t row, double base) {
  using Doubles = typename Wide::Doubles;
  using Longs = typename Wide::Longs;
  constexpr int kCount = Wide::kDoubles;
  const float* const cost = s.slot_cost.get() + row * s.slot_pitch;
  const double* const price = s.price.get();
  double* const distance = s.distance.get();
  std::int64_t* const before = s.before.get();
  const Longs through_row = Longs{} + row;
  Found<Doubles, Longs> best{Doubles{} + std::numeric_limits<double>::infinity(), Longs{}};
  Longs at = counting<Longs>();
  for (std::int64_t k = 0; k < s.slots; k += kCount, at += kCount) {
    const auto costs = load<typename Wide::HalfFloats>(cost + k);
    Doubles far = __builtin_convertvector(costs, Doubles) + base - load<Doubles>(price + k);
    if constexpr (kFirst) {
      store(through_row, before + k);
    } else {
      const Doubles known = load<Doubles>(distance + k);
      const Longs shorter = far < known;
      store(shorter ? through_row : load<Longs>(before + k), before + k);
      far = shorter ? far : known;
    }
    store(far, distance + k);
    const Longs nearer = far < best.value;
    best.value = nearer ? far : best.value;
    best.place = nearer ? at : best.place;
  }
  return lowest(best);
}

// The shortest way out: to the cheapest free column of a row that has been reached.
struct WayOut {
  double distance = std::numeric_limits<double>::infinity();
  std::int64_t row = -1;
  std::int64_t settled = 0;  // how many slots were settled before it was found
};

template <typename Wide, typename Unseen>
DETRX_INLINE WayOut search(AssignScratch& s, const CostRows& rows, std::int64_t start,
                           Unseen& unseen) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  WayOut out;
  double reached = 0.0;
  for (std::int64_t row = start;;) {
    fill(s, rows, row);
    if (s.taken[s.free_column[row]] != 0.0F) refresh<Wide>(s, rows, row, unseen);
    const double base = reached - s.gain[row];
    const double exit = base + s.free_cost[row];
    if (exit < out.distance) {
      out.distance = exit;
      out.row = row;
    }
    const auto next =
        row == start ? scan<Wide, true>(s, row, base) : scan<Wide, false>(s, row, base);
    if (!(next.value < out.distance)) return out;
    const std::int64_t slot = next.place;
    reached = next.value;
    s.settled[out.settled] = static_cast<std::int32_t>(slot);
    s.settled_at[out.settled] = reached;
    s.settled_price[out.settled] = s.price[slot];
    ++out.settled;
    s.price[slot] = -kInfinity;
    s.distance[slot] = kInfinity;
    row = s.owner[slot];
  }
}

// Gives a row that has none a column, moving other rows along the shortest path.
template <typename Wide, typename Unseen>
DETRX_INLINE void augment(AssignScratch& s, const CostRows& rows, std::int64_t start,
                          Unseen& unseen) {
  const WayOut out = search<Wide>(s, rows, start, unseen);
  s.gain[start] += out.distance;
  for (std::int64_t i = 0; i < out.settled; ++i) {
    const std::int64_t slot = s.settled[i];
    const double change = out.distance - s.settled_at[i];
    s.gain[s.owner[slot]] += change;
    s.price[slot] = s.settled_price[i] - change;
  }
  std::int32_t left = s.slot[out.row];
  s.price[own(s, out.row, s.free_column[out.row])] = 0.0;
  for (std::int64_t row = out.row; row != start;) {
    row = s.before[left];
    s.owner[left] = static_cast<std::int32_t>(row);
    std::swap(s.slot[row], left);
  }
}

// Solves the problem: afterwards column[slot[i]] is the column of row i. First each row takes its
// cheapest column if that is free, which on a trained network settles most; the others get theirs
// by shortest paths. The cheapest column of each row must be known.
template <typename Wide, typename Unseen>
DETRX_INLINE void solve(AssignScratch& s, const CostRows& rows, Unseen unseen) {
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    const std::int32_t column = s.free_column[row];
    if (s.taken[column] == 0.0F) own(s, row, column);
  }
  if (s.slots == rows.rows) return;
  prepare_paths(s, rows);
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    if (s.slot[row] < 0) augment<Wide>(s, rows, row, unseen);
  }
}

}  // namespace detrx
