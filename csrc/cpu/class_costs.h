// What each query of a matching problem costs at the classes of its targets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "cpu/match_problem.h"
#include "cpu/softmax.h"

namespace detrx::cpu {

// Logits of more bytes than this come from memory, each from a line of its own: asking for those of
// the next queries early hides the wait. Asking for what is in the cache costs more than it gives.
constexpr std::int64_t kFits = 2 << 20;

constexpr float kLargest = std::numeric_limits<float>::max();

// Lists the distinct classes of the targets and returns how many there are.
inline std::int64_t list_classes(const Problem& p, Scratch& s) {
  const std::int64_t targets = p.targets();
  std::int32_t* const place = s.place.reserve(p.in.logits.shape[3]);
  std::int64_t* const used = s.used.reserve(targets);
  std::int32_t* const kind = s.kind.reserve(targets);
  std::int32_t count = 0;
  for (std::int64_t t = 0; t < targets; ++t) {
    std::int32_t& at = place[p.label(t)];
    if (at == 0) {
      used[count] = p.label(t);
      at = ++count;
    }
    kind[t] = at - 1;
  }
  for (std::int64_t k = 0; k < count; ++k) place[used[k]] = 0;
  return count;
}

// The focal cost of each query at each used class, a vector of queries at a time.
template <typename Wide, typename T>
DETRX_INLINE void focal_costs(const Problem& p, Scratch& s, std::int64_t classes) {
  using Floats = typename Wide::Floats;
  constexpr int kCount = Wide::kCount;
  const CostWeights& w = p.weights;
  const T* const logits = p.first<T>(p.in.logits);
  const std::int64_t step = p.in.logits.stride[2], pitch = p.pitch();
  float* const to = s.class_cost.get();
  const bool far = p.in.logits.size() * static_cast<std::int64_t>(sizeof(T)) > kFits;
  for (std::int64_t q = 0; q < p.queries(); q += kCount) {
    const std::int64_t count = std::min<std::int64_t>(kCount, p.queries() - q);
    for (std::int64_t k = 0; k < classes; ++k) {
      const T* const from = logits + q * step + s.used[k] * p.in.logits.stride[3];
      T some[kCount] = {};
      if (count == kCount) {
        for (int lane = 0; lane < kCount; ++lane) some[lane] = from[lane * step];
        if (far) {
          for (int lane = 0; lane < kCount; ++lane) {
            __builtin_prefetch(from + (kCount + lane) * step);
          }
        }
      } else {
        for (std::int64_t lane = 0; lane < count; ++lane) some[lane] = from[lane * step];
      }
      Floats x;
      load_floats<FloatLanes<kCount>>(some, x);
      store(focal_cost(x, w.class_ * w.alpha, w.class_ * (1 - w.alpha), w.gamma),
            to + k * pitch + q);
    }
  }
}

// Less the probability of each used class, times its weight.
template <typename Wide, typename T>
DETRX_INLINE void softmax_costs(const Problem& p, Scratch& s, std::int64_t classes) {
  const T* const logits = p.first<T>(p.in.logits);
  const auto& stride = p.in.logits.stride;
  const std::int64_t all = p.in.logits.shape[3], pitch = p.pitch();
  float* const row = s.row.reserve(2 * padded(all));
  float* const to = s.class_cost.get();
  const std::int64_t* const used = s.used.get();
  for (std::int64_t q = 0; q < p.queries(); ++q) {
    const float sum = softmax_row<Wide>(logits + q * stride[2], stride[3], all, row).sum;
    const float scale = -p.weights.class_ / sum;
    for (std::int64_t k = 0; k < classes; ++k) to[k * pitch + q] = row[used[k]] * scale;
  }
}

template <typename Wide, typename T>
DETRX_INLINE void class_costs(const Problem& p, Scratch& s) {
  const std::int64_t classes = list_classes(p, s), pitch = p.pitch(), queries = p.queries();
  float* const to = s.class_cost.reserve(classes * pitch);
  if (p.weights.kind == ClassCost::focal) {
    focal_costs<Wide, T>(p, s, classes);
  } else {
    softmax_costs<Wide, T>(p, s, classes);
  }
  for (std::int64_t k = 0; k < classes; ++k) {
    std::fill(to + k * pitch + queries, to + (k + 1) * pitch, kLargest);
  }
}

}  // namespace detrx::cpu
