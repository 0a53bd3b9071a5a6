// One matching problem and the room that it is solved in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/assign.h"
#include "core/buffer.h"
#include "core/cost.h"
#include "core/half.h"
#include "core/inline.h"
#include "core/lanes.h"
#include "cpu/match.h"

namespace detrx::cpu {

struct Scratch {
  AssignScratch assign;
  Buffer<float> boxes;         // 9 x pitch: the queries' boxes, as BoxOf lists them
  Buffer<float> class_cost;    // distinct classes x pitch
  Buffer<float> cost;          // targets x pitch
  Buffer<float> healthy;       // a copy of cost where some of it is not finite
  Buffer<float> row;           // the softmax of a query, and its logits where they are copied
  Buffer<std::int32_t> place;  // classes: 1 + where its cost is in class_cost; 0 for none
  Buffer<std::int64_t> used;   // the distinct classes of the image's targets
  Buffer<std::int32_t> kind;   // targets: which of those
};

// One layer of one image.
struct Problem {
  const MatchInput& in;
  const CostWeights& weights;
  std::int64_t layer, image;

  std::int64_t targets() const { return in.counts.data[image * in.counts.stride[0]]; }
  std::int64_t queries() const { return in.logits.shape[2]; }
  std::int64_t label(std::int64_t target) const {
    return in.labels.data[image * in.labels.stride[0] + target * in.labels.stride[1]];
  }
  template <typename T>
  const T* first(const AnyView<4>& view) const {
    return static_cast<const T*>(view.data) + layer * view.stride[0] + image * view.stride[1];
  }
  // Queries rounded up to whole vectors; not to whole pages, where rows would fight for one place
  // in the cache.
  std::int64_t pitch() const {
    const std::int64_t whole = padded(queries());
    return whole % 256 == 0 ? whole + kMostLanes : whole;
  }
};

template <typename Wide, typename T>
DETRX_INLINE void read_boxes(const Problem& p, Scratch& s) {
  using Floats = typename Wide::Floats;
  const std::int64_t pitch = p.pitch(), queries = p.queries();
  const auto& stride = p.in.boxes.stride;
  const T* from = p.first<T>(p.in.boxes);
  float* const to = s.boxes.reserve(9 * pitch);
  for (std::int64_t q = 0; q < queries; ++q, from += stride[2]) {
    for (int side = 0; side < 4; ++side) to[side * pitch + q] = to_float(from[side * stride[3]]);
  }
  for (int side = 0; side < 4; ++side) {
    std::fill(to + side * pitch + queries, to + (side + 1) * pitch, 0.0F);
  }
  for (std::int64_t q = 0; q < pitch; q += Wide::kCount) {
    float* const at = to + q;
    const auto box = box_of(load<Floats>(at), load<Floats>(at + pitch),
                            load<Floats>(at + 2 * pitch), load<Floats>(at + 3 * pitch));
    store(box.x0, at + 4 * pitch);
    store(box.y0, at + 5 * pitch);
    store(box.x1, at + 6 * pitch);
    store(box.y1, at + 7 * pitch);
    store(box.area, at + 8 * pitch);
  }
}

template <typename Floats>
DETRX_INLINE BoxOf<Floats> box_at(const float* at, std::int64_t pitch) {
  const auto plane = [&](int number) __attribute__((always_inline)) {
    return load<Floats>(at + number * pitch);
  };
  return {plane(0), plane(1), plane(2), plane(3), plane(4), plane(5), plane(6), plane(7), plane(8)};
}

// A target's box, the same in every lane.
template <typename Floats>
DETRX_INLINE BoxOf<Floats> target_box(const Problem& p, std::int64_t target) {
  const auto& stride = p.in.truths.stride;
  const float* const from = p.in.truths.data + p.image * stride[0] + target * stride[1];
  return box_of(Floats{} + from[0], Floats{} + from[stride[2]], Floats{} + from[2 * stride[2]],
                Floats{} + from[3 * stride[2]]);
}

}  // namespace detrx::cpu
