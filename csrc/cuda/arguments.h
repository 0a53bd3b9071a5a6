// What every operator asks of the tensors that it is given.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "core/error.h"
#include "core/half.h"
#include "core/tensor_view.h"
#include "cuda/handles.h"

namespace detrx::cuda {

template <typename T>
constexpr Dtype dtype_of() {
  if constexpr (std::is_same_v<T, float>) return Dtype::float32;
  if constexpr (std::is_same_v<T, Half>) return Dtype::float16;
  if constexpr (std::is_same_v<T, Bfloat16>) return Dtype::bfloat16;
  if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::int32;
  if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::int64;
  if constexpr (std::is_same_v<T, unsigned char>) return Dtype::uint8;
}

// Whether a thread may read or write 16 bytes at once there.
inline bool aligned(const void* at) noexcept {
  return reinterpret_cast<std::uintptr_t>(at) % 16 == 0;
}

// The tensors of one call. They lie on one device, which is the current one as long as this lives.
class Arguments {
 public:
  Arguments(const char* where, int device) : here_(device, where), where_(where), device_(device) {}

  // The items of a contiguous tensor of one type and shape.
  template <typename T, std::size_t Rank>
  T* items(const char* name, const AnyView<Rank>& tensor,
           const std::array<std::int64_t, Rank>& shape) const {
    constexpr Dtype kWanted = dtype_of<std::remove_const_t<T>>();
    require(tensor.dtype == kWanted, "[", where_, "] ", name, " must be ", text(kWanted), ", got ",
            text(tensor.dtype));
    return static_cast<T*>(memory(name, tensor, shape));
  }

  // The memory of a contiguous tensor of any type and one shape.
  template <std::size_t Rank>
  void* memory(const char* name, const AnyView<Rank>& tensor,
               const std::array<std::int64_t, Rank>& shape) const {
    require_device(where_, name, tensor, kDevice);
    require(tensor.device_index == device_, "[", where_, "] ", name, " must lie on device ",
            device_, " with the rest, got device ", tensor.device_index);
    require_shape(where_, name, tensor, shape);
    require_contiguous(where_, name, tensor);
    return tensor.data;
  }

 private:
  OnDevice here_;
  const char* where_;
  int device_;
};

}  // namespace detrx::cuda
