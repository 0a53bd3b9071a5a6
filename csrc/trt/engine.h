// An engine: a network as TensorRT compiled it, and what it takes and gives.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor_view.h"
#include "trt/device.h"
#include "trt/library.h"
#include "trt/shape.h"

namespace nvinfer1 {
class ICudaEngine;
}

namespace detrx::trt {

// One input or output.
struct Tensor {
  std::string name;
  bool input = false;
  Dtype dtype = Dtype::float32;
  Shape shape;  // as the network has it
  // Of an input: the shapes that the engine was built for. Of an output, as of a fixed input, all
  // the same as shape.
  Shape least, usual, most;
};

// Read-only once it is made, so that sessions of many threads share it.
class Engine {
 public:
  // Throws EngineError where TensorRT does not take the plan or its tensors are not plain arrays.
  Engine(std::shared_ptr<Library> library, std::shared_ptr<DeviceInterface> device,
         const void* plan, std::size_t bytes);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const std::vector<Tensor>& tensors() const noexcept { return tensors_; }
  const Tensor* find(const std::string& name) const noexcept;
  Library& library() const noexcept { return *library_; }
  DeviceInterface& device() const noexcept { return *device_; }
  nvinfer1::ICudaEngine& plan() const noexcept { return *plan_; }

  // TensorRT's own description of the layers, as JSON.
  std::string layers_json() const;

 private:
  Tensor read(const char* name) const;

  struct Destroy {
    void operator()(nvinfer1::ICudaEngine* plan) const noexcept;
  };
  std::shared_ptr<Library> library_;
  std::shared_ptr<DeviceInterface> device_;
  std::unique_ptr<nvinfer1::ICudaEngine, Destroy> plan_;
  std::vector<Tensor> tensors_;
};

}  // namespace detrx::trt
