#include "cuda/frame_device.h"

#include <algorithm>
#include <vector>

namespace detrx::cuda {
namespace {

constexpr const char* kWhere = "frame_graph";

struct Graph {
  cudaGraphExec_t runs = nullptr;
  cudaEvent_t done = nullptr;
};

class CudaFrameDevice final : public FrameDevice {
 public:
  CudaFrameDevice(int device, cudaStream_t stream)
      : device_(device), stream_(stream), own_stream_(stream == nullptr) {
    const OnDevice here(device_, kWhere);
    int integrated = 0;
    check(cudaDeviceGetAttribute(&integrated, cudaDevAttrIntegrated, device_), kWhere);
    one_memory_ = integrated != 0;
    if (own_stream_) check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kWhere);
  }

  ~CudaFrameDevice() override {
    int before = 0;
    const bool known = cudaGetDevice(&before) == cudaSuccess;
    cudaSetDevice(device_);
    // By the events, for a stream of others may be gone.
    for (const Graph& graph : graphs_) {
      if (graph.done != nullptr) {
        cudaEventSynchronize(graph.done);
        cudaEventDestroy(graph.done);
      }
      if (graph.runs != nullptr) cudaGraphExecDestroy(graph.runs);
    }
    if (own_stream_) {
      cudaStreamSynchronize(stream_);
      cudaStreamDestroy(stream_);
    }
    for (void* const memory : pinned_) cudaFreeHost(memory);
    for (void* const memory : own_) cudaFree(memory);
    if (known) cudaSetDevice(before);
  }

  Shared outlet(std::size_t bytes) override {
    const OnDevice here(device_, kWhere);
    Shared memory{pin(bytes), nullptr};
    check(cudaHostGetDevicePointer(&memory.device, memory.host, 0), kWhere);
    return memory;
  }

  Shared inlet(std::size_t bytes) override {
    if (one_memory_) return outlet(bytes);
    void* const memory = allocate(bytes);
    const OnDevice here(device_, kWhere);
    return {pin(bytes), memory};
  }

  void send(const Shared& inlet, std::size_t bytes) override {
    if (one_memory_) return;
    const OnDevice here(device_, kWhere);
    check(cudaMemcpyAsync(inlet.device, inlet.host, bytes, cudaMemcpyHostToDevice, stream_),
          kWhere);
  }

  void release(const Shared& inlet) noexcept override {
    const auto forget = [](std::vector<void*>& all, void* memory) {
      all.erase(std::remove(all.begin(), all.end(), memory), all.end());
    };
    int before = 0;
    const bool known = cudaGetDevice(&before) == cudaSuccess;
    cudaSetDevice(device_);
    if (!one_memory_) {
      forget(own_, inlet.device);
      cudaFree(inlet.device);
    }
    forget(pinned_, inlet.host);
    cudaFreeHost(inlet.host);
    if (known) cudaSetDevice(before);
  }

  void* allocate(std::size_t bytes) override {
    const OnDevice here(device_, kWhere);
    void* memory = nullptr;
    own_.reserve(own_.size() + 1);
    check(cudaMalloc(&memory, bytes), kWhere);
    own_.push_back(memory);
    return memory;
  }

  int capture(const std::function<void(Stream)>& work) override {
    const OnDevice here(device_, kWhere);
    try {
      work(stream_);
    } catch (...) {
      cudaStreamSynchronize(stream_);  // what was enqueued uses memory that is about to go
      throw;
    }
    check(cudaStreamSynchronize(stream_), kWhere);
    const cudaGraph_t captured = record(work);
    graphs_.emplace_back();
    Graph& graph = graphs_.back();
    const cudaError_t made = cudaGraphInstantiateWithFlags(&graph.runs, captured, 0);
    cudaGraphDestroy(captured);
    check(made, kWhere);
    check(cudaEventCreateWithFlags(&graph.done, cudaEventDisableTiming | cudaEventBlockingSync),
          kWhere);
    check(cudaGraphUpload(graph.runs, stream_), kWhere);
    check(cudaEventRecord(graph.done, stream_), kWhere);
    return static_cast<int>(graphs_.size()) - 1;
  }

  void launch(int graph) override {
    const OnDevice here(device_, kWhere);
    const Graph& chosen = graphs_[static_cast<std::size_t>(graph)];
    check(cudaGraphLaunch(chosen.runs, stream_), kWhere);
    check(cudaEventRecord(chosen.done, stream_), kWhere);
  }

  void wait(int graph) override {
    check(cudaEventSynchronize(graphs_[static_cast<std::size_t>(graph)].done), kWhere);
  }

 private:
  void* pin(std::size_t bytes) {
    void* memory = nullptr;
    pinned_.reserve(pinned_.size() + 1);
    check(cudaHostAlloc(&memory, bytes, cudaHostAllocMapped), kWhere);
    pinned_.push_back(memory);
    return memory;
  }

  // A capture that the work breaks off is ended, or the stream could never be used again.
  cudaGraph_t record(const std::function<void(Stream)>& work) {
    cudaGraph_t captured = nullptr;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), kWhere);
    try {
      work(stream_);
    } catch (...) {
      cudaStreamEndCapture(stream_, &captured);
      if (captured != nullptr) cudaGraphDestroy(captured);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream_, &captured), kWhere);
    return captured;
  }

  int device_;
  cudaStream_t stream_;
  bool own_stream_;
  bool one_memory_ = false;
  std::vector<void*> pinned_, own_;
  std::vector<Graph> graphs_;
};

}  // namespace

std::unique_ptr<FrameDevice> open_frame_device(int device, Stream stream) {
  return std::make_unique<CudaFrameDevice>(device, stream);
}

}  // namespace detrx::cuda
