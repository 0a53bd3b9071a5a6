// What it costs to give a query to a target: shared by the matching kernels of all devices. F is
// float or a vector of floats; nothing branches on the data, and NaN goes through.
#pragma once

#include "core/exponential.h"
#include "core/inline.h"
#include "core/lanes.h"

namespace detrx {

enum class ClassCost { focal, softmax };

// The cost is class_ * class cost + l1 * distance - giou * overlap.
struct CostWeights {
  ClassCost kind = ClassCost::focal;
  float class_ = 2.0F;
  float l1 = 5.0F;
  float giou = 2.0F;
  float alpha = 0.25F;  // focal: the share of positives
  float gamma = 2.0F;   // focal: the power
};

// log(1 + x) for x in [0, 1]: an error below 2e-7.
template <typename F>
DETRX_HD DETRX_INLINE F log_of_one_and(F x) {
  F sum = x * 5.12610212e-3F - 2.90740646e-2F;
  sum = sum * x + 7.75160866e-2F;
  sum = sum * x - 0.136022476F;
  sum = sum * x + 0.190768807F;
  sum = sum * x - 0.24835399F;
  sum = sum * x + 0.333181217F;
  sum = sum * x - 0.49999445F;
  sum = sum * x + 0.999999966F;
  return sum * x;
}

// What a positive adds to the focal loss less what a negative does, by logit; finite where the
// logit is, as long as the product with the weights is.
//   positive  class_ * alpha
//   negative  class_ * (1 - alpha)
template <typename F>
DETRX_HD DETRX_INLINE F focal_cost(F x, float positive, float negative, float gamma) {
  const F e = exp_below_88(-most(x, -x));
  const F high = 1.0F / (1.0F + e), low = e * high;
  const F rest = log_of_one_and(e);
  const F minus_log_p = rest + most(-x, F{}), minus_log_q = rest + most(x, F{});  // q is 1 - p
  F p = x < F{} ? low : high, q = x < F{} ? high : low;
  if (gamma == 2.0F) {
    p = p * p;
    q = q * q;
  } else {
    p = exp_below_88(minus_log_p * -gamma);
    q = exp_below_88(minus_log_q * -gamma);
  }
  return q * minus_log_p * positive - p * minus_log_q * negative;
}

template <typename F>
struct BoxOf {
  F cx, cy, w, h, x0, y0, x1, y1, area;
};

template <typename F>
DETRX_HD DETRX_INLINE BoxOf<F> box_of(F cx, F cy, F w, F h) {
  const F right = w * 0.5F, down = h * 0.5F;
  return {cx, cy, w, h, cx - right, cy - down, cx + right, cy + down, w * h};
}

// l1 * the distance of centres and sizes - giou * the generalised IoU. Areas below 1e-12 count as
// that, so that two boxes without area have an overlap of -1, not NaN.
template <typename F>
DETRX_HD DETRX_INLINE F box_cost(const BoxOf<F>& a, const BoxOf<F>& b, float l1, float giou) {
  const F dx = a.cx - b.cx, dy = a.cy - b.cy, dw = a.w - b.w, dh = a.h - b.h;
  const F distance = (most(dx, -dx) + most(dy, -dy)) + (most(dw, -dw) + most(dh, -dh));
  const F meet_w = most(least(a.x1, b.x1) - most(a.x0, b.x0), F{});
  const F meet_h = most(least(a.y1, b.y1) - most(a.y0, b.y0), F{});
  const F hull_w = most(a.x1, b.x1) - least(a.x0, b.x0);
  const F hull_h = most(a.y1, b.y1) - least(a.y0, b.y0);
  const F tiny = F{} + 1e-12F;
  const F meet = meet_w * meet_h;
  const F join = a.area + b.area - meet;
  const F hull = hull_w * hull_h;
  const F some_join = most(join, tiny), some_hull = most(hull, tiny);
  // One division in place of two: meet / join - (hull - join) / hull.
  const F overlap = (meet * some_hull - (hull - join) * some_join) / (some_join * some_hull);
  return distance * l1 - overlap * giou;
}

}  // namespace detrx
