// Boxes as centres (cx, cy, w, h): how far two overlap, and the slopes of that. F is float, or a
// vector of floats for as many pairs; nothing but the kind of overlap is branched on.
#pragma once

#include <cmath>

#include "core/inline.h"

namespace detrx {

template <typename F>
struct CentresOf {
  F cx, cy, w, h;
};

template <typename F>
struct CornersOf {
  F x0, y0, x1, y1;
};

using Box = CentresOf<float>;
using Corners = CornersOf<float>;

// How two boxes are compared: plain and generalised IoU (arXiv 1902.09630), and IoU less the
// distance of the centres, without and with the difference of the sides' ratios (arXiv 1911.08287).
enum class Overlap : int { iou, giou, diou, ciou };

// Stands in for an area of zero, so that a degenerate box answers 0 and not NaN.
constexpr float kTinyArea = 1e-12F;

// The one that is less or greater; NaN where a is NaN. (Compilers take a choice between vectors by
// two joined comparisons apart, lane by lane, so here each choice has one.)
template <typename F>
DETRX_HD DETRX_INLINE F lesser(F a, F b) {
  return b < a ? b : a;
}
template <typename F>
DETRX_HD DETRX_INLINE F greater(F a, F b) {
  return b > a ? b : a;
}

// How much of a change of a passes into lesser(a, b), or of b into greater(a, b): equals share.
template <typename F>
DETRX_HD DETRX_INLINE F share_of_less(F a, F b) {
  const F none{}, half = none + 0.5F;
  return (a < b ? half : none) + (a <= b ? half : none);
}

// 1 where a length or an area counts as positive, else 0.
template <typename F>
DETRX_HD DETRX_INLINE F if_positive(F size) {
  const F none{}, one = none + 1.0F;
  return size > kTinyArea ? one : none;
}

template <typename F>
DETRX_HD DETRX_INLINE CornersOf<F> to_corners(const CentresOf<F>& box) {
  return {box.cx - 0.5F * box.w, box.cy - 0.5F * box.h, box.cx + 0.5F * box.w,
          box.cy + 0.5F * box.h};
}

// What all kinds of overlap are made of.
template <typename F>
struct MeetingOf {
  F inter_w, inter_h;  // sides of the intersection, negative where the boxes are apart
  F hull_w, hull_h;    // sides of the smallest box around both
  F inter, join;       // areas of the intersection and of the union
  F iou;
};

using Meeting = MeetingOf<float>;

template <typename F>
DETRX_HD DETRX_INLINE MeetingOf<F> meet(const CentresOf<F>& a, const CentresOf<F>& b) {
  const CornersOf<F> p = to_corners(a), t = to_corners(b);
  MeetingOf<F> m;
  m.inter_w = lesser(p.x1, t.x1) - greater(p.x0, t.x0);
  m.inter_h = lesser(p.y1, t.y1) - greater(p.y0, t.y0);
  m.hull_w = greater(p.x1, t.x1) - lesser(p.x0, t.x0);
  m.hull_h = greater(p.y1, t.y1) - lesser(p.y0, t.y0);
  m.inter = greater(m.inter_w, F{}) * greater(m.inter_h, F{});
  m.join = a.w * a.h + b.w * b.h - m.inter;
  m.iou = m.inter / greater(m.join, F{} + kTinyArea);
  return m;
}

// Generalised IoU in [-1, 1]; 1 only for equal boxes.
template <typename F>
DETRX_HD DETRX_INLINE F giou(const MeetingOf<F>& m) {
  const F around = m.hull_w * m.hull_h;
  return m.iou - (around - m.join) / greater(around, F{} + kTinyArea);
}

// The squared distance of the centres over the squared diagonal of the hull.
template <typename F>
DETRX_HD DETRX_INLINE F centre_distance(const MeetingOf<F>& m, const CentresOf<F>& a,
                                        const CentresOf<F>& b) {
  const F across = a.cx - b.cx, down = a.cy - b.cy;
  const F diagonal = m.hull_w * m.hull_w + m.hull_h * m.hull_h;
  return (across * across + down * down) / greater(diagonal, F{} + kTinyArea);
}

DETRX_HD inline float arctangent(float x) { return std::atan(x); }
template <typename F>
DETRX_INLINE F arctangent(F x) {
  for (unsigned lane = 0; lane < sizeof(F) / sizeof(float); ++lane) x[lane] = std::atan(x[lane]);
  return x;
}

// The difference of the boxes' diagonal angles, and the penalty weight * (4 / pi^2) * turn^2.
template <typename F>
struct AspectOf {
  F turn, weight, penalty;
};

constexpr float kFourOverPiSquared = 0.405284735F;

template <typename F>
DETRX_HD DETRX_INLINE AspectOf<F> compare_aspects(const MeetingOf<F>& m, const CentresOf<F>& a,
                                                  const CentresOf<F>& b) {
  const F tiny = F{} + kTinyArea;
  AspectOf<F> aspect;
  aspect.turn = arctangent(b.w / greater(b.h, tiny)) - arctangent(a.w / greater(a.h, tiny));
  const F differs = kFourOverPiSquared * aspect.turn * aspect.turn;
  aspect.weight = differs / greater(1.0F - m.iou + differs, tiny);
  aspect.penalty = aspect.weight * differs;
  return aspect;
}

// The overlap of two boxes that meet as m says, at most 1.
template <typename F>
DETRX_HD DETRX_INLINE F overlap(Overlap kind, const MeetingOf<F>& m, const CentresOf<F>& a,
                                const CentresOf<F>& b) {
  if (kind == Overlap::iou) return m.iou;
  if (kind == Overlap::giou) return giou(m);
  const F diou = m.iou - centre_distance(m, a, b);
  return kind == Overlap::diou ? diou : diou - compare_aspects(m, a, b).penalty;
}

// Of a quantity: its slope along the four corners and along the four numbers of box a.
template <typename F>
struct SlopeOf {
  CornersOf<F> corners;
  CentresOf<F> box;
};

// Adds the slope of IoU and, for giou, of the hull's empty part. An area that is not positive gives
// no slope: it has none that leads anywhere.
template <typename F>
DETRX_HD DETRX_INLINE void add_area_slopes(bool hull, const MeetingOf<F>& m, const CentresOf<F>& a,
                                           const CentresOf<F>& b, SlopeOf<F>& s) {
  const CornersOf<F> p = to_corners(a), t = to_corners(b);
  const F none{}, tiny = none + kTinyArea;
  const F around = m.hull_w * m.hull_h;
  const F sound = hull ? if_positive(m.join) * if_positive(around) : if_positive(m.join);
  const F per_join = sound / greater(m.join, tiny);
  const F per_join2 = m.inter * per_join * per_join;
  const F per_around = hull ? sound / greater(around, tiny) : none;
  const F of_around = -m.join * per_around * per_around;
  const F of_area = per_around - per_join2;
  const F of_inter = m.inter > 0.0F ? per_join + per_join2 - per_around : none;
  const F tall = of_inter * m.inter_h, wide = of_inter * m.inter_w;
  const F hull_tall = of_around * m.hull_h, hull_wide = of_around * m.hull_w;
  s.corners.x0 -= tall * share_of_less(t.x0, p.x0) + hull_tall * share_of_less(p.x0, t.x0);
  s.corners.y0 -= wide * share_of_less(t.y0, p.y0) + hull_wide * share_of_less(p.y0, t.y0);
  s.corners.x1 += tall * share_of_less(p.x1, t.x1) + hull_tall * share_of_less(t.x1, p.x1);
  s.corners.y1 += wide * share_of_less(p.y1, t.y1) + hull_wide * share_of_less(t.y1, p.y1);
  s.box.w += of_area * a.h;
  s.box.h += of_area * a.w;
}

// Adds the slope of -centre_distance.
template <typename F>
DETRX_HD DETRX_INLINE void add_distance_slopes(const MeetingOf<F>& m, const CentresOf<F>& a,
                                               const CentresOf<F>& b, SlopeOf<F>& s) {
  const CornersOf<F> p = to_corners(a), t = to_corners(b);
  const F diagonal = m.hull_w * m.hull_w + m.hull_h * m.hull_h;
  const F per_diagonal = if_positive(diagonal) / greater(diagonal, F{} + kTinyArea);
  const F of_hull = 2.0F * centre_distance(m, a, b) * per_diagonal;
  s.box.cx -= 2.0F * (a.cx - b.cx) * per_diagonal;
  s.box.cy -= 2.0F * (a.cy - b.cy) * per_diagonal;
  s.corners.x0 -= of_hull * m.hull_w * share_of_less(p.x0, t.x0);
  s.corners.y0 -= of_hull * m.hull_h * share_of_less(p.y0, t.y0);
  s.corners.x1 += of_hull * m.hull_w * share_of_less(t.x1, p.x1);
  s.corners.y1 += of_hull * m.hull_h * share_of_less(t.y1, p.y1);
}

// Adds the slope of the penalty's opposite; its weight counts as constant.
template <typename F>
DETRX_HD DETRX_INLINE void add_aspect_slopes(const MeetingOf<F>& m, const CentresOf<F>& a,
                                             const CentresOf<F>& b, SlopeOf<F>& s) {
  const AspectOf<F> aspect = compare_aspects(m, a, b);
  const F squares = greater(a.w * a.w + a.h * a.h, F{} + kTinyArea * kTinyArea);
  const F turn = 2.0F * kFourOverPiSquared * aspect.weight * aspect.turn;
  const F scale = if_positive(a.h) * turn / squares;
  s.box.w += scale * a.h;
  s.box.h -= scale * a.w;
}

// The slope of overlap(kind, a, b) along a.
template <typename F>
DETRX_HD DETRX_INLINE CentresOf<F> overlap_slope(Overlap kind, const MeetingOf<F>& m,
                                                 const CentresOf<F>& a, const CentresOf<F>& b) {
  SlopeOf<F> s{};
  add_area_slopes(kind == Overlap::giou, m, a, b, s);
  if (kind == Overlap::diou || kind == Overlap::ciou) add_distance_slopes(m, a, b, s);
  if (kind == Overlap::ciou) add_aspect_slopes(m, a, b, s);
  return {s.box.cx + s.corners.x0 + s.corners.x1, s.box.cy + s.corners.y0 + s.corners.y1,
          s.box.w + 0.5F * (s.corners.x1 - s.corners.x0),
          s.box.h + 0.5F * (s.corners.y1 - s.corners.y0)};
}

template <typename F>
DETRX_HD DETRX_INLINE F magnitude(F x) {
  return x < 0.0F ? -x : x;
}

// The distance of two boxes, number by number, and the sign of each along a.
template <typename F>
DETRX_HD DETRX_INLINE F distance(const CentresOf<F>& a, const CentresOf<F>& b) {
  return magnitude(a.cx - b.cx) + magnitude(a.cy - b.cy) + magnitude(a.w - b.w) +
         magnitude(a.h - b.h);
}
template <typename F>
DETRX_HD DETRX_INLINE F sign(F x) {
  const F none{}, one = none + 1.0F;
  return (x > 0.0F ? one : none) - (x < 0.0F ? one : none);
}

}  // namespace detrx
