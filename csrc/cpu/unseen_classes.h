// The softmax of a query, taken only where it may matter.
//
// A class cost lies between -class_ and 0, and most queries lie too far from a target for that to
// make a difference. So the costs start as those of the boxes; each query is marked as one that may
// be class_ cheaper, and its softmax is taken when it comes up as the cheapest of a target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "cpu/class_costs.h"

namespace detrx::cpu {

// Whether nothing among the logits of an image is NaN or infinite. There are Wide::kCount classes
// at least, side by side.
template <typename Wide, typename T>
DETRX_INLINE bool all_finite(const Problem& p) {
  using Floats = typename Wide::Floats;
  constexpr std::int64_t kCount = Wide::kCount;
  const auto& [shape, stride] = std::tie(p.in.logits.shape, p.in.logits.stride);
  const bool whole = stride[2] == shape[3];
  const std::int64_t rows = whole ? 1 : shape[2], each = whole ? shape[2] * shape[3] : shape[3];
  const T* row = p.first<T>(p.in.logits);
  Floats sick[4] = {};  // zeros, or NaN
  for (std::int64_t i = 0; i < rows; ++i, row += stride[2]) {
    std::int64_t j = 0;
    for (; j + 4 * kCount <= each; j += 4 * kCount) {
      for (int k = 0; k < 4; ++k) sick[k] += widened<Wide>(row + j + k * kCount) * 0.0F;
    }
    for (; j < each; j += kCount) sick[0] += widened<Wide>(row + std::min(j, each - kCount)) * 0.0F;
  }
  const Floats sum = (sick[0] + sick[1]) + (sick[2] + sick[3]);
  return sum_lanes<FloatLanes<Wide::kCount>>(sum) == 0.0F;
}

template <typename Wide, typename T>
class UnseenClasses {
 public:
  DETRX_INLINE UnseenClasses(const Problem& p, Scratch& s) : p_(p), s_(s) {
    s.row.reserve(2 * padded(p.in.logits.shape[3]));
  }

  // Marks all queries, once the assignment has been prepared.
  DETRX_INLINE void hide() {
    // A probability may be rounded to a little more than 1.
    std::fill_n(s_.assign.taken.get(), p_.queries(), -1.000001F * p_.weights.class_);
  }

  // Takes the softmax of a query that is marked. False where it is not.
  DETRX_INLINE bool reveal(std::int32_t query) {
    float& mark = s_.assign.taken[query];
    if (!(mark < 0.0F)) return false;
    mark = 0.0F;
    float* const row = s_.row.get();
    const T* const logits = p_.first<T>(p_.in.logits) + query * p_.in.logits.stride[2];
    const float sum = softmax_row<Wide>(logits, p_.in.logits.shape[3], row).sum;
    const float scale = -p_.weights.class_ / sum;
    float* cost = s_.cost.get() + query;
    for (std::int64_t t = 0; t < p_.targets(); ++t, cost += p_.pitch()) {
      *cost += row[p_.label(t)] * scale;
    }
    return true;
  }

 private:
  const Problem& p_;
  Scratch& s_;
};

}  // namespace detrx::cpu
