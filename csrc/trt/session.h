// What runs an engine: a context, a stream and all memory that it will ever need.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "trt/engine.h"

namespace nvinfer1 {
class IExecutionContext;
}

namespace detrx::trt {

// A contiguous array of the caller's, in the memory of the CPU.
struct Array {
  void* data = nullptr;
  Dtype dtype = Dtype::float32;
  Shape shape;
  bool writable = true;
};

// Any thread may call; a lock lets one in at a time, because one context runs one input at a time.
class Session {
 public:
  // inputs, outputs: the names of the tensors in the order in which run takes them; inputs must be
  // all of the engine's. Throws EngineError where the engine has others, DeviceError where the
  // memory does not suffice.
  Session(std::shared_ptr<Engine> engine, const std::vector<std::string>& inputs,
          const std::vector<std::string>& outputs);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Copies the inputs to the device, runs, copies the outputs back and waits. Allocates nothing.
  // Throws ArgumentError where an array does not fit, EngineError where TensorRT fails.
  void run(const Array* inputs, std::size_t given, const Array* outputs, std::size_t wanted);

  // For callers that keep their data on the device: the shape of an input (and so of the outputs),
  // where a tensor lies or shall lie (null: in the session's own memory, which run needs), and a
  // run on a stream of theirs, which does not wait.
  void set_shape(const std::string& name, const Shape& shape);
  Shape shape(const std::string& name);
  void* address(const std::string& name);
  void bind(const std::string& name, void* address);
  void enqueue(Stream stream);

  // For frames that are captured: enqueues one image from device memory to device memory, the
  // outputs in the order of run, on a stream that may be recording. Where TensorRT reads and writes
  // afterwards is as it was before.
  void enqueue_one(void* input, const std::vector<void*>& outputs, Stream stream);

  // The stream of run. Whoever enqueues on it shares the context's memory with run in peace.
  Stream stream() const noexcept { return stream_.get(); }

  // Milliseconds of each layer, the mean of some runs on what lies on the device.
  std::vector<std::pair<std::string, float>> profile(int runs);

 private:
  struct Slot {
    const Tensor* tensor = nullptr;
    Shape shape;
    std::size_t capacity = 0;  // bytes
    Memory device;
    Memory staging;
    bool bound = false;  // to memory of the caller's
  };

  void make_input(const std::string& name);
  void make_output(const std::string& name);
  void make_memory(Slot& slot);
  void reshape(Slot& input, const Shape& shape);
  void read_output_shapes();
  void accept(const Array* inputs, const Array* outputs);
  void require_own_memory() const;
  void launch(Stream stream);
  void lend(Slot& slot, void* address);
  void take_back();
  Slot& slot(const std::string& name);

  struct Destroy {
    void operator()(nvinfer1::IExecutionContext* context) const noexcept;
  };
  struct Free {
    DeviceInterface* device;
    void operator()(Stream stream) const noexcept { device->release(stream); }
  };

  std::mutex mutex_;
  std::shared_ptr<Engine> engine_;
  Memory activations_;
  std::vector<Slot> inputs_, outputs_;
  std::size_t wanted_ = 0;  // the outputs that run gives; the rest follow them
  std::unique_ptr<void, Free> stream_;
  std::unique_ptr<nvinfer1::IExecutionContext, Destroy> context_;
};

}  // namespace detrx::trt
