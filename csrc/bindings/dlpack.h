// The memory layout of DLPack (github.com/dmlc/dlpack, version 0.8), as far as tensors are read
// here.
#pragma once

#include <cstdint>

namespace detrx::dlpack {

constexpr const char* kCapsule = "dltensor";

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : std::uint8_t { kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Tensor {
  void* data;
  std::int32_t device_type;
  std::int32_t device_index;
  std::int32_t rank;
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // in items; null where the tensor is contiguous
  std::uint64_t byte_offset;
};

}  // namespace detrx::dlpack
