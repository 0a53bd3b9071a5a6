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
    if (size() == 0) return true;
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

enum class Dtype : std::uint8_t {
  float16,
  bfloat16,
  float32,
  float64,
  int8,
  int16,
  int32,
  int64,
  uint8,
  boolean,
};

inline const char* text(Dtype dtype) noexcept {
  constexpr const char* kNames[] = {"float16", "bfloat16", "float32", "float64", "int8",
                                    "int16",   "int32",    "int64",   "uint8",   "bool"};
  return kNames[static_cast<std::size_t>(dtype)];
}

enum class Device : std::uint8_t { cpu, cuda };

// A tensor of any type on any device; its pointer is followed only once both are known.
template <std::size_t Rank>
struct AnyView : TensorView<void, Rank> {
  Dtype dtype = Dtype::float32;
  Device device = Device::cpu;
  int device_index = 0;

  // The same memory as items of type T, which must be the type that dtype names.
  template <typename T>
  TensorView<T, Rank> items() const noexcept {
    return {static_cast<T*>(this->data), this->shape, this->stride};
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
  if (tensor.shape == shape) return;
  require(false, "[", where, "] ", name, " must have shape ", text(shape), ", got ",
          text(tensor.shape));
}

template <typename T, std::size_t Rank>
inline void require_contiguous(const char* where, const char* name,
                               const TensorView<T, Rank>& tensor) {
  require(tensor.contiguous(), "[", where, "] ", name,
          " must be contiguous; pass tensor.contiguous()");
}

template <std::size_t Rank>
inline void require_device(const char* where, const char* name, const AnyView<Rank>& tensor,
                           Device device) {
  require(tensor.device == device, "[", where, "] ", name, " must lie in the memory of the ",
          device == Device::cpu ? "CPU" : "GPU");
}

}  // namespace detrx
