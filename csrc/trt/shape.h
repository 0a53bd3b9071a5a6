// Sides of a tensor of any rank, without memory of its own.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <ostream>

#include "core/tensor_view.h"

namespace detrx::trt {

struct Shape {
  static constexpr std::size_t kMostSides = 8;

  std::size_t rank = 0;
  std::array<std::int64_t, kMostSides> side{};  // -1 where the input decides

  // Items, or -1 where a side is open.
  std::int64_t items() const noexcept {
    std::int64_t product = 1;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      if (side[axis] < 0) return -1;
      product *= side[axis];
    }
    return product;
  }

  // Whether every side lies between that of least and that of most.
  bool within(const Shape& least, const Shape& most) const noexcept {
    if (rank != least.rank || rank != most.rank) return false;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      if (side[axis] < least.side[axis] || side[axis] > most.side[axis]) return false;
    }
    return true;
  }

  bool operator==(const Shape& other) const noexcept { return within(other, other); }
  bool operator!=(const Shape& other) const noexcept { return !(*this == other); }
};

// As "(1, 3, 640, 640)". Written when it is read: a message that nobody needs costs nothing.
inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << "(";
  for (std::size_t axis = 0; axis < shape.rank; ++axis)
    out << (axis > 0 ? ", " : "") << shape.side[axis];
  return out << ")";
}

inline std::size_t bytes_of(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::float64:
    case Dtype::int64:
      return 8;
    case Dtype::float32:
    case Dtype::int32:
      return 4;
    case Dtype::float16:
    case Dtype::bfloat16:
    case Dtype::int16:
      return 2;
    default:
      return 1;
  }
}

}  // namespace detrx::trt
