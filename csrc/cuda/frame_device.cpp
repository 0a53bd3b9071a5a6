#include "cuda/frame_device.h"

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
  explicit CudaFrameDevice(int device) : device_(device) {
    const OnDevice here(device_, kWhere);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kWhere);
  }

  ~CudaFrameDevice() override {
    int before = 0;
    const bool known = cudaGetDevice(&before) == cudaSuccess;
    cudaSetDevice(device_);
    cudaStreamSynchronize(stream_);
    for (const Graph& graph : graphs_) {
      cudaGraphExecDestroy(graph.runs);
      if (graph.done != nullptr) cudaEventDestroy(graph.done);
    }
    for (void* const memory : shared_) cudaFreeHost(memory);
    for (void* const memory : own_) cudaFree(memory);
    cudaStreamDestroy(stream_);
    if (known) cudaSetDevice(before);
  }

  Shared share(std::size_t bytes) override {
    const OnDevice here(device_, kWhere);
    Shared memory{};
    shared_.reserve(shared_.size() + 1);
    check(cudaHostAlloc(&memory.host, bytes, cudaHostAllocMapped), kWhere);
    shared_.push_back(memory.host);
    check(cudaHostGetDevicePointer(&memory.device, memory.host, 0), kWhere);
    return memory;
  }

  void* allocate(std::size_t bytes) override {
    const OnDevice here(device_, kWhere);
    void* memory = nullptr;
    own_.reserve(own_.size() + 1);
    check(cudaMalloc(&memory, bytes), kWhere);
    own_.push_back(memory);
    return memory;
  }

  void upload(void* to, const void* from, std::size_t bytes) override {
    const OnDevice here(device_, kWhere);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), kWhere);
    check(cudaStreamSynchronize(stream_), kWhere);
  }

  int capture(const std::function<void(Stream)>& work) override {
    const OnDevice here(device_, kWhere);
    work(stream_);
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
    return static_cast<int>(graphs_.size()) - 1;
  }

  void launch(int graph) override {
    const OnDevice here(device_, kWhere);
    const Graph& chosen = graphs_[static_cast<std::size_t>(graph)];
    check(cudaGraphLaunch(chosen.runs, stream_), kWhere);
    check(cudaEventRecord(chosen.done, stream_), kWhere);
  }

  bool done(int graph) override {
    const cudaError_t state = cudaEventQuery(graphs_[static_cast<std::size_t>(graph)].done);
    if (state == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    check(state, kWhere);
    return true;
  }

  void wait(int graph) override {
    check(cudaEventSynchronize(graphs_[static_cast<std::size_t>(graph)].done), kWhere);
  }

 private:
  // A capture that the work breaks off is ended, or the stream could never be used again.
  cudaGraph_t record(const std::function<void(Stream)>& work) {
    cudaGraph_t captured = nullptr;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), kWhere);
    try {
      work(stream_);
    } catch (...) {
      cudaStreamEndCapture(stream_, &captured);
      if (captured != nullptr) cudaGraphDestroy(captured);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &captured), kWhere);
    return captured;
  }

  int device_;
  cudaStream_t stream_ = nullptr;
  std::vector<void*> shared_, own_;
  std::vector<Graph> graphs_;
};

}  // namespace

std::unique_ptr<FrameDevice> open_frame_device(int device) {
  return std::make_unique<CudaFrameDevice>(device);
}

}  // namespace detrx::cuda
