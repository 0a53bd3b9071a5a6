// Errors of the CUDA runtime as DeviceError, and the device that a call works on.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <sstream>

#include "core/error.h"
#include "core/tensor_view.h"

namespace detrx::cuda {

// Where the tensors of this folder lie.
constexpr Device kDevice = Device::cuda;

// Throws DeviceError unless the call went well; never waits.
inline void check(cudaError_t code, const char* where) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // or the next call that asks would find it again
  std::ostringstream message;
  message << "[" << where << "] CUDA answers: " << cudaGetErrorString(code) << " ("
          << cudaGetErrorName(code) << ")";
  if (code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver) {
    message << ". `nvidia-smi` must list a GPU and its driver must be new enough; without one, "
               "detrx runs on the CPU";
  }
  if (code == cudaErrorNoKernelImageForDevice) {
    message << ". The kernels were not built for this device: install detrx again on it, or name "
               "its architecture in CMAKE_CUDA_ARCHITECTURES";
  }
  throw DeviceError(message.str());
}

// Makes a device the current one for the length of a scope.
class OnDevice {
 public:
  OnDevice(int device, const char* where) {
    check(cudaGetDevice(&before_), where);
    if (device == before_) return;
    check(cudaSetDevice(device), where);
    moved_ = true;
  }
  ~OnDevice() {
    if (moved_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool moved_ = false;
};

// The stream that torch.cuda.current_stream().cuda_stream names; 0 is the default stream.
inline cudaStream_t stream_of(std::int64_t handle) noexcept {
  return reinterpret_cast<cudaStream_t>(static_cast<std::intptr_t>(handle));
}

}  // namespace detrx::cuda
