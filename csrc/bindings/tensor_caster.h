// How a Python buffer (a NumPy array) or a DLPack capsule (torch.utils.dlpack.to_dlpack(tensor))
// becomes a view. Who calls keeps the tensor alive for the length of the call.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "bindings/dlpack.h"
#include "core/error.h"
#include "core/half.h"
#include "core/tensor_view.h"

namespace detrx {

template <typename T>
constexpr Dtype dtype_of() {
  if constexpr (std::is_same_v<T, float>) return Dtype::float32;
  if constexpr (std::is_same_v<T, double>) return Dtype::float64;
  if constexpr (std::is_same_v<T, Half>) return Dtype::float16;
  if constexpr (std::is_same_v<T, Bfloat16>) return Dtype::bfloat16;
  if constexpr (std::is_same_v<T, std::int8_t>) return Dtype::int8;
  if constexpr (std::is_same_v<T, std::int16_t>) return Dtype::int16;
  if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::int32;
  if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::int64;
  if constexpr (std::is_same_v<T, std::uint8_t>) return Dtype::uint8;
  if constexpr (std::is_same_v<T, bool>) return Dtype::boolean;
}

inline Dtype dtype_of(const dlpack::Tensor& tensor) {
  const int code = tensor.code, bits = tensor.bits;
  if (tensor.lanes == 1) {
    if (code == dlpack::kFloat && bits == 32) return Dtype::float32;
    if (code == dlpack::kFloat && bits == 16) return Dtype::float16;
    if (code == dlpack::kBfloat && bits == 16) return Dtype::bfloat16;
    if (code == dlpack::kInt && bits == 64) return Dtype::int64;
    if (code == dlpack::kInt && bits == 32) return Dtype::int32;
    if (code == dlpack::kFloat && bits == 64) return Dtype::float64;
    if (code == dlpack::kInt && bits == 16) return Dtype::int16;
    if (code == dlpack::kInt && bits == 8) return Dtype::int8;
    if (code == dlpack::kUint && bits == 8) return Dtype::uint8;
    if (code == dlpack::kBool && bits == 8) return Dtype::boolean;
  }
  throw ArgumentError("[tensor] items must be floats, integers or truth values of the usual sizes");
}

inline Dtype dtype_of(const pybind11::buffer_info& buffer) {
  const char kind = buffer.format.size() == 1 ? buffer.format[0] : ' ';
  const auto size = buffer.itemsize;
  if (kind == 'f') return Dtype::float32;
  if (kind == 'd') return Dtype::float64;
  if (kind == 'e') return Dtype::float16;
  if (kind == '?') return Dtype::boolean;
  if (kind == 'B') return Dtype::uint8;
  if (kind == 'b') return Dtype::int8;
  if (kind == 'h') return Dtype::int16;
  if ((kind == 'i' || kind == 'l' || kind == 'q') && size == 4) return Dtype::int32;
  if ((kind == 'i' || kind == 'l' || kind == 'q') && size == 8) return Dtype::int64;
  throw ArgumentError("[tensor] items must be of a plain NumPy type, got format " + buffer.format);
}

// Holds the buffer, where there is one, for the length of the call.
template <std::size_t Rank>
class Incoming {
 public:
  // False when the object is no tensor.
  bool load(pybind11::handle source, bool writable) {
    if (!source) return false;
    if (PyCapsule_IsValid(source.ptr(), dlpack::kCapsule)) {
      read(*static_cast<const dlpack::Tensor*>(
          PyCapsule_GetPointer(source.ptr(), dlpack::kCapsule)));
      return true;
    }
    if (PyObject_CheckBuffer(source.ptr()) == 0) return false;
    held_ = pybind11::reinterpret_borrow<pybind11::buffer>(source).request(writable);
    read(held_);
    return true;
  }

  AnyView<Rank> view;

 private:
  void read(const dlpack::Tensor& tensor) {
    require_rank(tensor.rank);
    view.dtype = dtype_of(tensor);
    const bool cuda =
        tensor.device_type == dlpack::kCuda || tensor.device_type == dlpack::kCudaManaged;
    require(cuda || tensor.device_type == dlpack::kCpu || tensor.device_type == dlpack::kCudaHost,
            "[tensor] must lie in the memory of the CPU or of a CUDA device, got DLPack device ",
            tensor.device_type);
    view.device = cuda ? Device::cuda : Device::cpu;
    view.device_index = tensor.device_index;
    view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    std::int64_t step = 1;
    for (std::size_t axis = Rank; axis-- > 0;) {
      view.shape[axis] = tensor.shape[axis];
      view.stride[axis] = tensor.strides ? tensor.strides[axis] : step;
      step *= tensor.shape[axis];
    }
  }

  void read(const pybind11::buffer_info& buffer) {
    view.dtype = dtype_of(buffer);
    require_rank(buffer.ndim);
    view.data = buffer.ptr;
    for (std::size_t axis = 0; axis < Rank; ++axis) {
      view.shape[axis] = buffer.shape[axis];
      require(buffer.strides[axis] % buffer.itemsize == 0, "[tensor] strides must be whole items");
      view.stride[axis] = buffer.strides[axis] / buffer.itemsize;
    }
  }

  static void require_rank(std::int64_t rank) {
    require(rank == static_cast<std::int64_t>(Rank), "[tensor] must have ", Rank,
            " dimensions, got ", rank);
  }

  pybind11::buffer_info held_;
};

}  // namespace detrx

namespace pybind11::detail {

// CPU memory of items of one type. A T that is not const asks for a writable buffer.
template <typename T, std::size_t Rank>
struct type_caster<detrx::TensorView<T, Rank>> {
  using View = detrx::TensorView<T, Rank>;
  PYBIND11_TYPE_CASTER(View, const_name("numpy.ndarray | dltensor"));

  bool load(handle source, bool /*convert*/) {
    if (!incoming_.load(source, !std::is_const_v<T>)) return false;
    const auto& found = incoming_.view;
    constexpr detrx::Dtype kWanted = detrx::dtype_of<std::remove_const_t<T>>();
    detrx::require(found.dtype == kWanted, "[tensor] items must be ", detrx::text(kWanted),
                   ", got ", detrx::text(found.dtype));
    detrx::require_device("tensor", "it", found, detrx::Device::cpu);
    value = found.template items<T>();
    return true;
  }

 private:
  detrx::Incoming<Rank> incoming_;
};

// Memory of any type and device. A NumPy array need not be writable: who writes asks for a capsule.
template <std::size_t Rank>
struct type_caster<detrx::AnyView<Rank>> {
  using View = detrx::AnyView<Rank>;
  PYBIND11_TYPE_CASTER(View, const_name("numpy.ndarray | dltensor"));

  bool load(handle source, bool /*convert*/) {
    if (!incoming_.load(source, false)) return false;
    value = incoming_.view;
    return true;
  }

 private:
  detrx::Incoming<Rank> incoming_;
};

}  // namespace pybind11::detail
