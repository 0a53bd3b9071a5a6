// TensorRT's own header, and every place where one major differs from another. Read by the .cpp
// files of this folder only; what they declare names no type of TensorRT but by forward
// declaration.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "core/tensor_view.h"
#include "trt/shape.h"
#include "trt/version.h"

namespace detrx::trt {

constexpr Version kCompiled{NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH, false};

#if NV_TENSORRT_MAJOR == 8

inline std::size_t activation_bytes(const nvinfer1::ICudaEngine& engine) noexcept {
  return engine.getDeviceMemorySize();
}

// A context whose activations lie in memory of ours.
inline nvinfer1::IExecutionContext* make_context(nvinfer1::ICudaEngine& engine) noexcept {
  return engine.createExecutionContextWithoutDeviceMemory();
}

inline void give_memory(nvinfer1::IExecutionContext& context, void* memory,
                        std::size_t /*bytes*/) noexcept {
  context.setDeviceMemory(memory);
}

inline std::optional<Dtype> later_dtype(nvinfer1::DataType /*type*/) noexcept {
  return std::nullopt;
}

#else

inline std::size_t activation_bytes(const nvinfer1::ICudaEngine& engine) noexcept {
  return static_cast<std::size_t>(engine.getDeviceMemorySizeV2());
}

inline nvinfer1::IExecutionContext* make_context(nvinfer1::ICudaEngine& engine) noexcept {
  return engine.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
}

inline void give_memory(nvinfer1::IExecutionContext& context, void* memory,
                        std::size_t bytes) noexcept {
  context.setDeviceMemoryV2(memory, static_cast<int64_t>(bytes));
}

inline std::optional<Dtype> later_dtype(nvinfer1::DataType type) noexcept {
  if (type == nvinfer1::DataType::kINT64) return Dtype::int64;
  if (type == nvinfer1::DataType::kBF16) return Dtype::bfloat16;
  return std::nullopt;
}

#endif

// The type of an engine's tensor; none for those that no array of ours can hold.
inline std::optional<Dtype> dtype_of(nvinfer1::DataType type) noexcept {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return Dtype::float32;
    case nvinfer1::DataType::kHALF:
      return Dtype::float16;
    case nvinfer1::DataType::kINT8:
      return Dtype::int8;
    case nvinfer1::DataType::kINT32:
      return Dtype::int32;
    case nvinfer1::DataType::kBOOL:
      return Dtype::boolean;
    case nvinfer1::DataType::kUINT8:
      return Dtype::uint8;
    default:
      return later_dtype(type);
  }
}

// Sides are 32 bits wide in TensorRT 8 and 64 later. A tensor of too many sides has none here.
inline Shape shape_of(const nvinfer1::Dims& dims) noexcept {
  Shape shape;
  if (dims.nbDims < 0 || dims.nbDims > static_cast<int>(Shape::kMostSides)) return shape;
  shape.rank = static_cast<std::size_t>(dims.nbDims);
  for (std::size_t axis = 0; axis < shape.rank; ++axis) shape.side[axis] = dims.d[axis];
  return shape;
}

inline nvinfer1::Dims dims_of(const Shape& shape) noexcept {
  nvinfer1::Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(shape.rank);
  for (std::size_t axis = 0; axis < shape.rank; ++axis) {
    dims.d[axis] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(shape.side[axis]);
  }
  return dims;
}

}  // namespace detrx::trt
