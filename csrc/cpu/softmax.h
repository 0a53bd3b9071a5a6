// The softmax of one row of logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/lanes.h"
#include "core/vector_math.h"

namespace detrx::cpu {

// log(sum(e^(scale * x))), scale > 0. `room` >= count items may be read from x on.
template <typename Item>
struct LogSumExp {
  template <typename Lanes>
  static DETRX_INLINE float run(const Item* x, std::int64_t count, std::int64_t room, float scale) {
    using Floats = typename Lanes::Floats;
    constexpr std::int64_t kCount = Lanes::kCount;
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    const std::int64_t whole = count - count % kCount;
    Floats tail{}, most = Floats{} + kNone;
    if (whole < count) {
      load_within<Lanes>(x + whole, count - whole, room - whole, kNone, tail);
      most = tail;
    }
    for (std::int64_t i = 0; i < whole; i += kCount) {
      Floats at;
      load_floats<Lanes>(x + i, at);
      most = at > most ? at : most;
    }
    const float top = greatest_lane<Lanes>(most);
    Floats sum{}, e;
    if (whole < count) {
      exp_of_nonpositive<Lanes>((tail - top) * scale, e);
      sum += e;
    }
    for (std::int64_t i = 0; i < whole; i += kCount) {
      Floats at;
      load_floats<Lanes>(x + i, at);
      exp_of_nonpositive<Lanes>((at - top) * scale, e);
      sum += e;
    }
    return top * scale + std::log(sum_lanes<Lanes>(sum));
  }
};

// Writes scale times the softmax, log_sum being what LogSumExp answers.
template <typename Item>
struct ScaledSoftmax {
  template <typename Lanes>
  static DETRX_INLINE void run(const Item* x, std::int64_t count, std::int64_t room, float log_sum,
                               float scale, Item* to) {
    using Floats = typename Lanes::Floats;
    constexpr std::int64_t kCount = Lanes::kCount;
    const std::int64_t whole = count - count % kCount;
    Floats at, e;
    for (std::int64_t i = 0; i < whole; i += kCount) {
      load_floats<Lanes>(x + i, at);
      exp_of_nonpositive<Lanes>(at - log_sum, e);
      store_floats<Lanes>(scale * e, to + i);
    }
    if (whole == count) return;
    load_within<Lanes>(x + whole, count - whole, room - whole, 0.0F, at);
    exp_of_nonpositive<Lanes>(at - log_sum, e);
    store_some<Lanes>(scale * e, count - whole, to + whole);
  }
};

template <typename Wide, typename T>
DETRX_INLINE typename Wide::Floats widened(const T* from) {
  typename Wide::Floats x;
  load_floats<FloatLanes<Wide::kCount>>(from, x);
  return x;
}

// Writes e to the power of each logit less `shift`, at most 88, and returns the sum. There are
// Wide::kCount logits at least; where they are no whole number of vectors, the last one goes back.
template <typename Wide, typename T>
DETRX_INLINE float exponentials(const T* from, std::int64_t count, typename Wide::Floats shift,
                                float* to) {
  using Floats = typename Wide::Floats;
  constexpr int kCount = Wide::kCount;
  const std::int64_t last = count - kCount, again = (kCount - count % kCount) % kCount;
  Floats sum{};
  for (std::int64_t c = 0; c <= last; c += kCount) {
    const Floats e = exp_below_88(least(Floats{} + 88.0F, widened<Wide>(from + c) - shift));
    store(e, to + c);
    sum += e;
  }
  if (again > 0) {
    const Floats e = exp_below_88(least(Floats{} + 88.0F, widened<Wide>(from + last) - shift));
    store(e, to + last);
    const auto is_new = counting<typename Wide::Ints>() >= static_cast<std::int32_t>(again);
    sum += is_new ? e : Floats{};
  }
  return sum_lanes<FloatLanes<kCount>>(sum);
}

// Powers of e of logits less `top`, and their sum.
struct Powers {
  float sum, top;
};

// Writes numbers in the ratio of the softmax. The highest logit is looked for only where the powers
// of e would otherwise not fit in a float.
template <typename Wide, typename T>
DETRX_INLINE Powers softmax_row(const T* from, std::int64_t count, float* to) {
  using Floats = typename Wide::Floats;
  const float sum = exponentials<Wide>(from, count, Floats{}, to);
  if (sum > 1e-26F && sum < 1e30F) return {sum, 0.0F};
  Floats highest = widened<Wide>(from + count - Wide::kCount);
  for (std::int64_t c = 0; c + Wide::kCount <= count; c += Wide::kCount) {
    highest = most(highest, widened<Wide>(from + c));
  }
  const Floats top = -least_lane(-highest);
  return {exponentials<Wide>(from, count, top, to), top[0]};
}

// The same for logits that are not adjacent, or few; to has room for as many again.
template <typename Wide, typename T>
DETRX_INLINE Powers softmax_row(const T* from, std::int64_t step, std::int64_t count, float* to) {
  if (step == 1 && count >= Wide::kCount) return softmax_row<Wide>(from, count, to);
  float* const copy = to + padded(count);
  for (std::int64_t c = 0; c < count; ++c) copy[c] = to_float(from[c * step]);
  std::fill(copy + count, copy + padded(count), -std::numeric_limits<float>::infinity());
  return softmax_row<Wide>(copy, padded(count), to);
}

// Writes scale times the softmax, and answers log(sum(e^x)).
struct SoftmaxAndLogSum {
  template <typename Own>
  static DETRX_INLINE float run(const float* x, std::int64_t count, float scale, float* to) {
    using Wide = Lanes<Own::kCount>;
    if (count >= Wide::kCount) {
      const Powers powers = softmax_row<Wide>(x, count, to);
      multiply<Wide>(to, count, scale / powers.sum);
      return powers.top + std::log(powers.sum);
    }
    float few[2 * kMostLanes];
    const Powers powers = softmax_row<Wide>(x, 1, count, few);
    for (std::int64_t i = 0; i < count; ++i) to[i] = scale / powers.sum * few[i];
    return powers.top + std::log(powers.sum);
  }
};

using SoftmaxAndLogSumEntries =
    Entries<SoftmaxAndLogSum, float, const float*, std::int64_t, float, float*>;

template <typename Item>
using LogSumExpEntries =
    Entries<LogSumExp<Item>, float, const Item*, std::int64_t, std::int64_t, float>;
template <typename Item>
using ScaledSoftmaxEntries = Entries<ScaledSoftmax<Item>, void, const Item*, std::int64_t,
                                     std::int64_t, float, float, Item*>;

}  // namespace detrx::cpu
