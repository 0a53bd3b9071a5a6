// A tensor that someone else owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>

#include "core/error.h"

namespace detrx {

template <typename T, std::size_t Rank>
struct TensorView {
  T* data = nullptr;
  std::array<std::int64_t, Rank> shape{};
  std::array<std::int64_t, Rank> stride{};  // in elements, may be negative

  bool contiguous() const noexcept {
    std::int64_t step = 1;
    for (std::size_t axis = Rank; axis-- > 0;) {
      if (shape[axis] > 1 && stride[axis] != step) return false;
      step *= shape[axis];
    }
    return true;
  }

  std::int64_t size() const noexcept {
    std::int64_t product = 1;
    for (const std::int64_t side : shape) product *= side;
    return product;
  }
};

template <std::size_t Rank>
inline std::string text(const std::array<std::int64_t, Rank>& shape) {
  std::ostringstream out;
  out << "(";
  for (std::size_t axis = 0; axis < Rank; ++axis) out << (axis ? ", " : "") << shape[axis];
  out << ")";
  return out.str();
}

// Refuses a tensor of another shape; where is the operator, name the argument.
template <typename T, std::size_t Rank>
inline void require_shape(const char* where, const char* name, const TensorView<T, Rank>& tensor,
                          const std::array<std::int64_t, Rank>& shape) {
  require(tensor.shape == shape, "[", where, "] ", name, " must have shape ", text(shape), ", got ",
          text(tensor.shape));
}

template <typename T, std::size_t Rank>
inline void require_contiguous(const char* where, const char* name,
                               const TensorView<T, Rank>& tensor) {
  require(tensor.contiguous(), "[", where, "] ", name,
          " must be contiguous; pass tensor.contiguous()");
}

}  // namespace detrx
