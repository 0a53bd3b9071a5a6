// The softmax of one row of logits.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

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

template <typename Item>
using LogSumExpEntries =
    Entries<LogSumExp<Item>, float, const Item*, std::int64_t, std::int64_t, float>;
template <typename Item>
using ScaledSoftmaxEntries = Entries<ScaledSoftmax<Item>, void, const Item*, std::int64_t,
                                     std::int64_t, float, float, Item*>;

}  // namespace detrx::cpu
