// One assignment problem, solved by shortest augmenting paths with float64 potentials
// (Jonker and Volgenant 1987; rectangular form: Crouse 2016).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "core/inline.h"

namespace detrx {

// Vectors of the size that the machine has; wider ones are taken apart by compilers, item by item.
struct FourLanes {
  static constexpr int kCount = 4;
  typedef double Distances __attribute__((vector_size(32)));
  typedef std::int64_t Indices __attribute__((vector_size(32)));
  typedef float Costs __attribute__((vector_size(16)));
};
struct TwoLanes {
  static constexpr int kCount = 2;
  typedef double Distances __attribute__((vector_size(16)));
  typedef std::int64_t Indices __attribute__((vector_size(16)));
  typedef float Costs __attribute__((vector_size(8)));
};

// Rows are padded to whole vectors, two at a time.
constexpr int kPad = 8;

// Everything that one problem needs, kept from problem to problem so that nothing is allocated
// once the largest has been seen.
struct AssignScratch {
  std::vector<float> cost;            // rows x pitch, +inf past the last column
  std::vector<double> gain;           // rows: the potential of a row
  std::vector<double> price;          // pitch: the potential of a column, <= 0
  std::vector<double> open_price;     // pitch: price, but -inf for a column that is settled
  std::vector<double> distance;       // pitch: shortest path so far, +inf for a settled column
  std::vector<std::int64_t> before;   // pitch: the row before a column on its path
  std::vector<std::int64_t> owner;    // pitch: the row that has a column, or -1
  std::vector<std::int64_t> column;   // rows: the column that a row has, or -1
  std::vector<std::int64_t> nearest;  // rows: the cheapest column of a row
  std::vector<std::int64_t> settled;  // columns whose distance is final, in order
  std::vector<double> settled_at;     // and that distance

  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t pitch = 0;  // columns rounded up to a multiple of kPad

  void resize(std::int64_t new_rows, std::int64_t new_columns) {
    rows = new_rows;
    columns = new_columns;
    pitch = (columns + kPad - 1) / kPad * kPad;
    const auto r = static_cast<std::size_t>(rows), p = static_cast<std::size_t>(pitch);
    if (cost.size() < r * p) cost.resize(r * p);
    for (auto* of_rows : {&column, &nearest}) of_rows->assign(r, -1);
    gain.assign(r, 0.0);
    price.assign(p, 0.0);
    open_price.resize(p);
    distance.resize(p);
    before.resize(p);
    owner.assign(p, -1);
  }
};

// Vectors move between registers and memory of any alignment.
template <typename Vector, typename Item>
DETRX_INLINE void load(Vector& to, const Item* from) {
  std::memcpy(&to, from, sizeof(Vector));
}
template <typename Vector, typename Item>
DETRX_INLINE void store(const Vector& from, Item* to) {
  std::memcpy(to, &from, sizeof(Vector));
}

struct Nearest {
  double distance;
  std::int64_t column;
};

// Lets every open column be reached through row, and finds the nearest one; the first of equals.
template <typename Lanes>
DETRX_INLINE Nearest scan(AssignScratch& s, std::int64_t row, double reached) {
  using Distances = typename Lanes::Distances;
  using Indices = typename Lanes::Indices;
  constexpr int kCount = Lanes::kCount;
  const float* const cost = &s.cost[static_cast<std::size_t>(row * s.pitch)];
  const double* const price = s.open_price.data();
  double* const distance = s.distance.data();
  std::int64_t* const before = s.before.data();
  const double base = reached - s.gain[static_cast<std::size_t>(row)];
  const Indices from_row = Indices{} + row;
  Distances best = Distances{} + std::numeric_limits<double>::infinity();
  Indices best_at = Indices{} + s.pitch;
  Indices at;
  for (int lane = 0; lane < kCount; ++lane) at[lane] = lane;
  for (std::int64_t j = 0; j < s.pitch; j += kCount, at += kCount) {
    typename Lanes::Costs costs;
    Distances prices, far;
    Indices from;
    load(costs, cost + j);
    load(prices, price + j);
    load(far, distance + j);
    load(from, before + j);
    const Distances through = __builtin_convertvector(costs, Distances) + base - prices;
    const Indices shorter = through < far;
    const Distances least = shorter ? through : far;
    from = shorter ? from_row : from;
    store(least, distance + j);
    store(from, before + j);
    const Indices nearer = least < best;
    best = nearer ? least : best;
    best_at = nearer ? at : best_at;
  }
  Nearest found{best[0], best_at[0]};
  for (int lane = 1; lane < kCount; ++lane) {
    const bool wins = best[lane] < found.distance ||
                      (best[lane] == found.distance && best_at[lane] < found.column);
    if (wins) found = {best[lane], best_at[lane]};
  }
  return found;
}

// Finds a shortest path from a free row to a free column and returns that column.
template <typename Lanes>
DETRX_INLINE std::int64_t search(AssignScratch& s, std::int64_t start, double& reached) {
  const double infinity = std::numeric_limits<double>::infinity();
  std::copy(s.price.begin(), s.price.end(), s.open_price.begin());
  std::fill(s.distance.begin(), s.distance.end(), infinity);
  s.settled.clear();
  s.settled_at.clear();
  std::int64_t row = start;
  reached = 0.0;
  for (;;) {
    const Nearest next = scan<Lanes>(s, row, reached);
    const auto j = static_cast<std::size_t>(next.column);
    reached = next.distance;
    if (s.owner[j] < 0) return next.column;
    s.settled.push_back(next.column);
    s.settled_at.push_back(reached);
    s.open_price[j] = -infinity;
    s.distance[j] = infinity;
    row = s.owner[j];
  }
}

// Gives a free row a column, moving other rows along the shortest path.
template <typename Lanes>
DETRX_INLINE void augment(AssignScratch& s, std::int64_t start) {
  double reached = 0.0;
  std::int64_t column = search<Lanes>(s, start, reached);
  s.gain[static_cast<std::size_t>(start)] += reached;
  for (std::size_t i = 0; i < s.settled.size(); ++i) {
    const auto j = static_cast<std::size_t>(s.settled[i]);
    const double change = reached - s.settled_at[i];
    s.gain[static_cast<std::size_t>(s.owner[j])] += change;
    s.price[j] -= change;
  }
  for (std::int64_t row = -1; row != start;) {
    row = s.before[static_cast<std::size_t>(column)];
    s.owner[static_cast<std::size_t>(column)] = row;
    std::swap(s.column[static_cast<std::size_t>(row)], column);
  }
}

// Solves the problem in s.cost (rows <= columns, finite) into s.column. s.gain must hold each row's
// least cost and s.nearest its first column: a row whose nearest column is free takes it, which on
// a trained network settles most rows; the others get theirs by shortest paths.
template <typename Lanes>
DETRX_INLINE void solve(AssignScratch& s) {
  for (std::int64_t row = 0; row < s.rows; ++row) {
    const auto i = static_cast<std::size_t>(row), j = static_cast<std::size_t>(s.nearest[i]);
    if (s.owner[j] >= 0) continue;
    s.owner[j] = row;
    s.column[i] = s.nearest[i];
  }
  for (std::int64_t row = 0; row < s.rows; ++row) {
    if (s.column[static_cast<std::size_t>(row)] < 0) augment<Lanes>(s, row);
  }
}

}  // namespace detrx
