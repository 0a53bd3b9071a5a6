// How a Python buffer (a NumPy array, or torch's tensor.numpy()) becomes a TensorView.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/error.h"
#include "core/tensor_view.h"

namespace pybind11::detail {

// Holds the buffer for the length of the call. A T that is not const asks for a writable buffer.
template <typename T, std::size_t Rank>
struct type_caster<detrx::TensorView<T, Rank>> {
  using View = detrx::TensorView<T, Rank>;
  using Item = std::remove_const_t<T>;
  PYBIND11_TYPE_CASTER(View, const_name("numpy.ndarray"));

  bool load(handle source, bool /*convert*/) {
    if (!source || PyObject_CheckBuffer(source.ptr()) == 0) return false;
    held_ = reinterpret_borrow<buffer>(source).request(!std::is_const_v<T>);
    detrx::require(held_.item_type_is_equivalent_to<Item>(), "[tensor] items must be ",
                   format_descriptor<Item>::format(), ", got ", held_.format);
    detrx::require(held_.ndim == static_cast<ssize_t>(Rank), "[tensor] must have ", Rank,
                   " dimensions, got ", held_.ndim);
    value.data = static_cast<T*>(held_.ptr);
    for (std::size_t axis = 0; axis < Rank; ++axis) {
      value.shape[axis] = held_.shape[axis];
      const auto size = static_cast<ssize_t>(sizeof(Item));
      detrx::require(held_.strides[axis] % size == 0, "[tensor] strides must be whole items");
      value.stride[axis] = held_.strides[axis] / size;
    }
    return true;
  }

 private:
  buffer_info held_;
};

}  // namespace pybind11::detail
