// The doors of the library with our plugins: what TensorRT, trtexec and our own runtime call in it.
#pragma once

#include <cstdint>

#include "trt/plugins/operators.h"

namespace detrx::trt {

#if NV_TENSORRT_MAJOR == 8

using Creator = nvinfer1::IPluginCreator;

// As 8.6 declares ILoggerFinder; the headers of 8.5 do not have it.
class LoggerFinder {
 public:
  virtual nvinfer1::ILogger* findLogger() = 0;

 protected:
  virtual ~LoggerFinder() = default;
};

#else

using Creator = nvinfer1::IPluginCreatorInterface;
using LoggerFinder = nvinfer1::ILoggerFinder;

#endif

// What makes plugins of a kind; of plugin_v2.cpp or plugin_v3.cpp.
std::unique_ptr<Creator> make_creator(const Kind& kind);

}  // namespace detrx::trt

#define DETRX_DOOR extern "C" __attribute__((visibility("default")))

// What the registry of TensorRT 10 and later asks a library for, and that of 8.6; trtexec calls it
// --dynamicPlugins. A creator for each kind; they live as long as the library.
#if NV_TENSORRT_MAJOR == 8
DETRX_DOOR detrx::trt::Creator* const* getPluginCreators(std::int32_t& count) noexcept;
#else
DETRX_DOOR detrx::trt::Creator* const* getCreators(std::int32_t& count) noexcept;
#endif
DETRX_DOOR void setLoggerFinder(detrx::trt::LoggerFinder* finder) noexcept;

// Makes the plugins known to a registry, once, whatever the version, and logs to logger, which may
// be null. Answers how many the registry has of ours now.
DETRX_DOOR std::int32_t detrxRegisterPlugins(void* registry, void* logger) noexcept;
