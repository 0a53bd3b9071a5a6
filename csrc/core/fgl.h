// D-FINE's fine-grained localisation loss (arXiv 2410.13842) of one edge: which two bins its
// distribution is taught, and in what shares.
#pragma once

#include <cmath>

#include "core/box.h"
#include "core/inline.h"

namespace detrx {

// The offset that a bin stands for, in sides of the reference times reg_scale: zero in the middle,
// geometric from there to bound, and twice bound at both ends. bins is even and at least 4; there
// are bins + 1 offsets.
DETRX_HD inline float bin_offset(int bin, int bins, float bound) {
  const int place = bin - bins / 2;
  const int far = place < 0 ? -place : place;
  const float inner =
      std::pow(bound + 1.0F, 2.0F * static_cast<float>(far) / static_cast<float>(bins - 2)) - 1.0F;
  const float size = 2 * far == bins ? 2.0F * bound : inner;
  return place < 0 ? -size : (place > 0 ? size : 0.0F);
}

// Where an edge lies between the bins.
struct Bin {
  int left;     // the bin to its left, in [0, bins)
  float share;  // of the bin to the right, in [0, 1]
};

// Finds the bins around the offset of an edge; offsets holds bins + 1 rising numbers.
DETRX_HD inline Bin find_bin(float edge, const float* offsets, int bins) {
  const float first = offsets[0], last = offsets[bins];
  const float at = edge < first ? first : (edge > last ? last : edge);
  int left = 0, beyond = bins;  // offsets[left] <= at < offsets[beyond], or at is the last
  while (beyond - left > 1) {
    const int middle = (left + beyond) / 2;
    const bool right = offsets[middle] <= at;
    left = right ? middle : left;
    beyond = right ? beyond : middle;
  }
  return {left, (at - offsets[left]) / (offsets[left + 1] - offsets[left])};
}

struct Edges {
  float at[4];  // left, top, right, bottom
};

// How far the edges of truth lie outside those of reference, in the unit of bin_offset.
DETRX_HD inline Edges edge_offsets(const Box& reference, const Box& truth, float reg_scale) {
  const Corners corners = to_corners(truth);
  const float across = reference.w / reg_scale + 1e-16F, down = reference.h / reg_scale + 1e-16F;
  const float inside = 0.5F * reg_scale;
  return {
      {(reference.cx - corners.x0) / across - inside, (reference.cy - corners.y0) / down - inside,
       (corners.x1 - reference.cx) / across - inside, (corners.y1 - reference.cy) / down - inside}};
}

}  // namespace detrx
