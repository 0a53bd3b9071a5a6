// One assignment problem, solved by shortest augmenting paths with float64 potentials
// (Jonker and Volgenant 1987; rectangular form: Crouse 2016).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/inline.h"

namespace detrx {

constexpr int kLanes = 8;

// Eight columns at a time; the compiler splits them to what the machine has.
typedef double Distances __attribute__((vector_size(8 * kLanes), aligned(8), may_alias));
typedef std::int64_t Indices __attribute__((vector_size(8 * kLanes), aligned(8), may_alias));
typedef float Costs __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

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
  std::int64_t pitch = 0;  // columns rounded up to whole lanes

  void resize(std::int64_t new_rows, std::int64_t new_columns) {
    rows = new_rows;
    columns = new_columns;
    pitch = (columns + kLanes - 1) / kLanes * kLanes;
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

struct Nearest {
  double distance;
  std::int64_t column;
};

// Lets every open column be reached through row, and finds the nearest one; the first of equals.
DETRX_INLINE Nearest scan(AssignScratch& s, std::int64_t row, double reached) {
  const auto start = static_cast<std::size_t>(row * s.pitch);
  const double base = reached - s.gain[static_cast<std::size_t>(row)];
  Distances best = Distances{} + std::numeric_limits<double>::infinity();
  Indices best_at = Indices{} + s.pitch;
  Indices at = {0, 1, 2, 3, 4, 5, 6, 7};
  for (std::int64_t j = 0; j < s.pitch; j += kLanes, at += kLanes) {
    const auto k = static_cast<std::size_t>(j);
    const Costs cost = *reinterpret_cast<const Costs*>(&s.cost[start + k]);
    auto& far = *reinterpret_cast<Distances*>(&s.distance[k]);
    auto& from = *reinterpret_cast<Indices*>(&s.before[k]);
    const Distances through = __builtin_convertvector(cost, Distances) + base -
                              *reinterpret_cast<const Distances*>(&s.open_price[k]);
    const Indices shorter = through < far;
    far = shorter ? through : far;
    from = shorter ? Indices{} + row : from;
    const Indices nearer = far < best;
    best = nearer ? far : best;
    best_at = nearer ? at : best_at;
  }
  Nearest found{best[0], best_at[0]};
  for (int lane = 1; lane < kLanes; ++lane) {
    const bool wins = best[lane] < found.distance ||
                      (best[lane] == found.distance && best_at[lane] < found.column);
    if (wins) found = {best[lane], best_at[lane]};
  }
  return found;
}

// Finds a shortest path from a free row to a free column and returns that column.
DETRX_INLINE std::int64_t search(AssignScratch& s, std::int64_t start, double& reached) {
  const double infinity = std::numeric_limits<double>::infinity();
  std::copy(s.price.begin(), s.price.end(), s.open_price.begin());
  std::fill(s.distance.begin(), s.distance.end(), infinity);
  s.settled.clear();
  s.settled_at.clear();
  std::int64_t row = start;
  reached = 0.0;
  for (;;) {
    const Nearest next = scan(s, row, reached);
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
DETRX_INLINE void augment(AssignScratch& s, std::int64_t start) {
  double reached = 0.0;
  std::int64_t column = search(s, start, reached);
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
DETRX_INLINE void solve(AssignScratch& s) {
  for (std::int64_t row = 0; row < s.rows; ++row) {
    const auto i = static_cast<std::size_t>(row), j = static_cast<std::size_t>(s.nearest[i]);
    if (s.owner[j] >= 0) continue;
    s.owner[j] = row;
    s.column[i] = s.nearest[i];
  }
  for (std::int64_t row = 0; row < s.rows; ++row) {
    if (s.column[static_cast<std::size_t>(row)] < 0) augment(s, row);
  }
}

}  // namespace detrx
