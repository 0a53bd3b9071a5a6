// How a tuple of NumPy arrays becomes arrays for a TensorRT session, without memory of its own.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>

#include "core/error.h"
#include "trt/session.h"

namespace detrx {

inline Dtype dtype_of_format(const char* format, Py_ssize_t size) {
  const char kind = format == nullptr ? 'B' : format[0];
  const bool whole = kind == 'i' || kind == 'l' || kind == 'q';
  if (kind == 'f') return Dtype::float32;
  if (kind == 'e') return Dtype::float16;
  if (whole && size == 8) return Dtype::int64;
  if (whole && size == 4) return Dtype::int32;
  if (kind == 'b') return Dtype::int8;
  if (kind == 'B') return Dtype::uint8;
  if (kind == '?') return Dtype::boolean;
  if (kind == 'd') return Dtype::float64;
  if (kind == 'h') return Dtype::int16;
  throw ArgumentError(std::string("[session] arrays must be of a plain NumPy type, got format ") +
                      format);
}

// Holds the buffers for the length of a call.
class Arrays {
 public:
  Arrays() = default;
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;
  ~Arrays() {
    for (std::size_t index = 0; index < count_; ++index) PyBuffer_Release(&held_[index]);
  }

  bool load(pybind11::handle source) {
    if (PyTuple_Check(source.ptr()) == 0) return false;
    const auto count = static_cast<std::size_t>(PyTuple_GET_SIZE(source.ptr()));
    require(count <= kMost, "[session] takes at most ", kMost, " arrays, got ", count);
    for (std::size_t index = 0; index < count; ++index) {
      hold(PyTuple_GET_ITEM(source.ptr(), static_cast<Py_ssize_t>(index)));
    }
    return true;
  }

  const trt::Array* data() const noexcept { return arrays_.data(); }
  std::size_t size() const noexcept { return count_; }

 private:
  static constexpr std::size_t kMost = 8;

  void hold(PyObject* source) {
    Py_buffer& held = held_[count_];
    if (PyObject_GetBuffer(source, &held, PyBUF_ND | PyBUF_FORMAT) != 0) {
      PyErr_Clear();
      throw ArgumentError(
          "[session] arrays must be contiguous; pass numpy.ascontiguousarray(array)");
    }
    trt::Array& array = arrays_[count_++];
    array.data = held.buf;
    array.writable = held.readonly == 0;
    array.dtype = dtype_of_format(held.format, held.itemsize);
    array.shape.rank = static_cast<std::size_t>(held.ndim);
    require(array.shape.rank <= trt::Shape::kMostSides, "[session] an array has at most ",
            trt::Shape::kMostSides, " sides, got ", held.ndim);
    for (std::size_t axis = 0; axis < array.shape.rank; ++axis) {
      array.shape.side[axis] = held.shape[axis];
    }
  }

  std::array<Py_buffer, kMost> held_;
  std::array<trt::Array, kMost> arrays_;
  std::size_t count_ = 0;
};

}  // namespace detrx

namespace pybind11::detail {

template <>
struct type_caster<detrx::Arrays> {
  static constexpr auto name = const_name("tuple[numpy.ndarray, ...]");
  template <typename T>
  using cast_op_type = const detrx::Arrays&;

  bool load(handle source, bool /*convert*/) { return arrays_.load(source); }
  operator const detrx::Arrays&() const noexcept { return arrays_; }

 private:
  detrx::Arrays arrays_;
};

// A tuple or list of sides.
template <>
struct type_caster<detrx::trt::Shape> {
  PYBIND11_TYPE_CASTER(detrx::trt::Shape, const_name("tuple[int, ...]"));

  bool load(handle source, bool /*convert*/) {
    if (!isinstance<sequence>(source)) return false;
    const auto sides = reinterpret_borrow<sequence>(source);
    detrx::require(sides.size() <= detrx::trt::Shape::kMostSides, "[session] too many sides");
    value.rank = sides.size();
    for (std::size_t axis = 0; axis < value.rank; ++axis) {
      value.side[axis] = sides[axis].cast<std::int64_t>();
    }
    return true;
  }

  static handle cast(const detrx::trt::Shape& shape, return_value_policy, handle) {
    tuple sides(shape.rank);
    for (std::size_t axis = 0; axis < shape.rank; ++axis) sides[axis] = int_(shape.side[axis]);
    return sides.release();
  }
};

}  // namespace pybind11::detail
