// The queue that work is put into. Apart from launch.h, so that who only calls needs no kernels.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <cuda_runtime_api.h>
#endif

namespace detrx::cuda {

#if defined(__CUDACC_RTC__)
using Stream = void*;
#else
using Stream = cudaStream_t;
#endif

}  // namespace detrx::cuda
