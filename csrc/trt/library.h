// A TensorRT that is installed, opened while the program runs.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "trt/version.h"

namespace nvinfer1 {
class IRuntime;
}

namespace detrx::trt {

// The version of the headers that this code was compiled against.
Version compiled_version() noexcept;

// Opens the first of several libraries that this code can call. Its version is asked before
// anything else. A library stays open until the process ends, as TensorRT wants it.
class Library {
 public:
  // names: paths or sonames, tried in this order.
  // Throws MissingLibrary where none can be opened, EngineError where some could and none fits.
  explicit Library(const std::vector<std::string>& names);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const Version& version() const noexcept { return version_; }
  const std::string& path() const noexcept { return path_; }

  // Made at the first call, because it needs a driver. Throws EngineError where TensorRT gives
  // none.
  nvinfer1::IRuntime& runtime();

  // Opens a library with plugins of ours and makes them known, before an engine that holds some is
  // opened. It stays open as TensorRT does. Throws EngineError where that fails.
  void load_plugins(const std::string& path);

 private:
  bool open(const std::string& name, std::string& reason, bool& seen);

  struct Destroy {
    void operator()(nvinfer1::IRuntime* runtime) const noexcept;
  };
  std::mutex mutex_;
  void* handle_ = nullptr;
  Version version_;
  std::string path_;
  std::unique_ptr<nvinfer1::IRuntime, Destroy> runtime_;
};

}  // namespace detrx::trt
