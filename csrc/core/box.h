// Boxes as centres (cx, cy, w, h): how far two overlap, and the slopes of that.
#pragma once

#include <cmath>

#include "core/inline.h"

namespace detrx {

struct Box {
  float cx, cy, w, h;
};

struct Corners {
  float x0, y0, x1, y1;
};

// How two boxes are compared: plain and generalised IoU (arXiv 1902.09630), and IoU less the
// distance of the centres, without and with the difference of the sides' ratios (arXiv 1911.08287).
enum class Overlap : int { iou, giou, diou, ciou };

// Stands in for an area of zero, so that a degenerate box answers 0 and not NaN.
constexpr float kTinyArea = 1e-12F;

DETRX_HD inline Corners to_corners(const Box& box) {
  return {box.cx - 0.5F * box.w, box.cy - 0.5F * box.h, box.cx + 0.5F * box.w,
          box.cy + 0.5F * box.h};
}

// The one that is less or greater; NaN where either is NaN.
DETRX_HD inline float lesser(float a, float b) { return b < a || b != b ? b : a; }
DETRX_HD inline float greater(float a, float b) { return b > a || b != b ? b : a; }

// How much of a change of a passes into lesser(a, b), or of b into greater(a, b): equals share.
DETRX_HD inline float share_of_less(float a, float b) {
  return a < b ? 1.0F : (a == b ? 0.5F : 0.0F);
}

// What all kinds of overlap are made of.
struct Meeting {
  float inter_w, inter_h;  // sides of the intersection, negative where the boxes are apart
  float hull_w, hull_h;    // sides of the smallest box around both
  float inter, join;       // areas of the intersection and of the union
  float iou;
};

DETRX_HD inline Meeting meet(const Box& a, const Box& b) {
  const Corners p = to_corners(a), t = to_corners(b);
  Meeting m;
  m.inter_w = lesser(p.x1, t.x1) - greater(p.x0, t.x0);
  m.inter_h = lesser(p.y1, t.y1) - greater(p.y0, t.y0);
  m.hull_w = greater(p.x1, t.x1) - lesser(p.x0, t.x0);
  m.hull_h = greater(p.y1, t.y1) - lesser(p.y0, t.y0);
  m.inter = greater(m.inter_w, 0.0F) * greater(m.inter_h, 0.0F);
  m.join = a.w * a.h + b.w * b.h - m.inter;
  m.iou = m.inter / greater(m.join, kTinyArea);
  return m;
}

// Generalised IoU in [-1, 1]; 1 only for equal boxes.
DETRX_HD inline float giou(const Meeting& m) {
  const float around = m.hull_w * m.hull_h;
  return m.iou - (around - m.join) / greater(around, kTinyArea);
}

// The squared distance of the centres over the squared diagonal of the hull.
DETRX_HD inline float centre_distance(const Meeting& m, const Box& a, const Box& b) {
  const float across = a.cx - b.cx, down = a.cy - b.cy;
  const float diagonal = m.hull_w * m.hull_w + m.hull_h * m.hull_h;
  return (across * across + down * down) / greater(diagonal, kTinyArea);
}

// The difference of the boxes' diagonal angles, and the penalty weight * (4 / pi^2) * turn^2.
struct Aspect {
  float turn, weight, penalty;
};

constexpr float kFourOverPiSquared = 0.405284735F;

DETRX_HD inline Aspect compare_aspects(const Meeting& m, const Box& a, const Box& b) {
  Aspect aspect;
  aspect.turn = std::atan(b.w / greater(b.h, kTinyArea)) - std::atan(a.w / greater(a.h, kTinyArea));
  const float differs = kFourOverPiSquared * aspect.turn * aspect.turn;
  aspect.weight = differs / greater(1.0F - m.iou + differs, kTinyArea);
  aspect.penalty = aspect.weight * differs;
  return aspect;
}

// The overlap of two boxes that meet as m says, at most 1.
DETRX_HD inline float overlap(Overlap kind, const Meeting& m, const Box& a, const Box& b) {
  if (kind == Overlap::iou) return m.iou;
  if (kind == Overlap::giou) return giou(m);
  const float diou = m.iou - centre_distance(m, a, b);
  return kind == Overlap::diou ? diou : diou - compare_aspects(m, a, b).penalty;
}

// Of a quantity: its slope along the four corners and along the four numbers of box a.
struct Slope {
  Corners corners;
  Box box;
};

// Adds the slope of IoU and, for giou, of the hull's empty part. An area that is not positive gives
// no slope: it has none that leads anywhere.
DETRX_HD inline void add_area_slopes(bool hull, const Meeting& m, const Box& a, const Box& b,
                                     Slope& s) {
  const Corners p = to_corners(a), t = to_corners(b);
  if (!(m.join > kTinyArea)) return;
  const float around = m.hull_w * m.hull_h;
  const bool apart = m.inter_w <= 0 || m.inter_h <= 0;
  if (hull && !(around > kTinyArea)) return;
  const float per_join = 1.0F / m.join, per_join2 = m.inter * per_join * per_join;
  const float per_around = hull ? 1.0F / around : 0.0F;
  const float of_inter = apart ? 0.0F : per_join + per_join2 - per_around;
  const float of_area = per_around - per_join2;
  const float of_around = hull ? -m.join * per_around * per_around : 0.0F;
  const float tall = of_inter * m.inter_h, wide = of_inter * m.inter_w;
  const float hull_tall = of_around * m.hull_h, hull_wide = of_around * m.hull_w;
  s.corners.x0 -= tall * share_of_less(t.x0, p.x0) + hull_tall * share_of_less(p.x0, t.x0);
  s.corners.y0 -= wide * share_of_less(t.y0, p.y0) + hull_wide * share_of_less(p.y0, t.y0);
  s.corners.x1 += tall * share_of_less(p.x1, t.x1) + hull_tall * share_of_less(t.x1, p.x1);
  s.corners.y1 += wide * share_of_less(p.y1, t.y1) + hull_wide * share_of_less(t.y1, p.y1);
  s.box.w += of_area * a.h;
  s.box.h += of_area * a.w;
}

// Adds the slope of -centre_distance.
DETRX_HD inline void add_distance_slopes(const Meeting& m, const Box& a, const Box& b, Slope& s) {
  const float diagonal = m.hull_w * m.hull_w + m.hull_h * m.hull_h;
  if (!(diagonal > kTinyArea)) return;
  const Corners p = to_corners(a), t = to_corners(b);
  const float per_diagonal = 1.0F / diagonal;
  const float of_hull = 2.0F * centre_distance(m, a, b) * per_diagonal;
  s.box.cx -= 2.0F * (a.cx - b.cx) * per_diagonal;
  s.box.cy -= 2.0F * (a.cy - b.cy) * per_diagonal;
  s.corners.x0 -= of_hull * m.hull_w * share_of_less(p.x0, t.x0);
  s.corners.y0 -= of_hull * m.hull_h * share_of_less(p.y0, t.y0);
  s.corners.x1 += of_hull * m.hull_w * share_of_less(t.x1, p.x1);
  s.corners.y1 += of_hull * m.hull_h * share_of_less(t.y1, p.y1);
}

// Adds the slope of the penalty's opposite; its weight counts as constant.
DETRX_HD inline void add_aspect_slopes(const Meeting& m, const Box& a, const Box& b, Slope& s) {
  if (!(a.h > kTinyArea)) return;
  const Aspect aspect = compare_aspects(m, a, b);
  const float scale =
      2.0F * kFourOverPiSquared * aspect.weight * aspect.turn / (a.w * a.w + a.h * a.h);
  s.box.w += scale * a.h;
  s.box.h -= scale * a.w;
}

// The slope of overlap(kind, a, b) along a.
DETRX_HD inline Box overlap_slope(Overlap kind, const Meeting& m, const Box& a, const Box& b) {
  Slope s{};
  add_area_slopes(kind == Overlap::giou, m, a, b, s);
  if (kind == Overlap::diou || kind == Overlap::ciou) add_distance_slopes(m, a, b, s);
  if (kind == Overlap::ciou) add_aspect_slopes(m, a, b, s);
  return {s.box.cx + s.corners.x0 + s.corners.x1, s.box.cy + s.corners.y0 + s.corners.y1,
          s.box.w + 0.5F * (s.corners.x1 - s.corners.x0),
          s.box.h + 0.5F * (s.corners.y1 - s.corners.y0)};
}

// The distance of two boxes, number by number, and the sign of each along a.
DETRX_HD inline float distance(const Box& a, const Box& b) {
  return std::fabs(a.cx - b.cx) + std::fabs(a.cy - b.cy) + std::fabs(a.w - b.w) +
         std::fabs(a.h - b.h);
}
DETRX_HD inline float sign(float x) { return x > 0 ? 1.0F : (x < 0 ? -1.0F : 0.0F); }

}  // namespace detrx
