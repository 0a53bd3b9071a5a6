// The operators of ours that an engine may hold. Read by the .cpp files of csrc/trt only.
#pragma once

#include <vector>

#include "trt/vendor.h"

namespace detrx::trt {

#if NV_TENSORRT_MAJOR == 8
using Creator = nvinfer1::IPluginCreator;
#else
using Creator = nvinfer1::IPluginCreatorInterface;
#endif

// One of each of our plugins; they live as long as the process.
const std::vector<Creator*>& creators();

// Makes them known to an opened TensorRT, once in a process.
void register_plugins(void* library);

}  // namespace detrx::trt
