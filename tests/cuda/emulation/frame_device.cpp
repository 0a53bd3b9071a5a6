// Takes the place of csrc/cuda/frame_device.cpp: a graph is its work, done when somebody waits, so
// that memory which is used again too early shows in the answers. What the host and the device see
// of an inlet are two memories, so that what was not sent shows, too.
#include "cuda/frame_device.h"

#include <cstdlib>
#include <deque>
#include <mutex>
#include <set>
#include <vector>

#include "core/error.h"
#include "emulator.h"

namespace detrx::cuda {
namespace {

class HostFrameDevice final : public FrameDevice {
 public:
  ~HostFrameDevice() override {
    for (void* const memory : memory_) std::free(memory);
  }

  Shared outlet(std::size_t bytes) override {
    void* const memory = allocate(bytes);
    return {memory, memory};
  }

  Shared inlet(std::size_t bytes) override { return {allocate(bytes), allocate(bytes)}; }

  void send(const Shared& inlet, std::size_t bytes) override {
    const std::lock_guard<std::mutex> lock(waits_);
    waiting_.push_back([=] { std::memcpy(inlet.device, inlet.host, bytes); });
  }

  void release(const Shared& inlet) noexcept override {
    for (void* const memory : {inlet.host, inlet.device}) {
      memory_.erase(memory);
      std::free(memory);
    }
  }

  // Aligned as the GPU's.
  void* allocate(std::size_t bytes) override {
    ++emulator::allocations;
    return *memory_.insert(std::aligned_alloc(256, (bytes + 255) / 256 * 256)).first;
  }

  int capture(const std::function<void(Stream)>& work) override {
    run_all();
    work(nullptr);
    std::vector<std::function<void()>> recorded;
    emulator::recorder = &recorded;
    try {
      work(nullptr);
    } catch (...) {
      emulator::recorder = nullptr;
      throw;
    }
    emulator::recorder = nullptr;
    graphs_.push_back(recorded);
    return static_cast<int>(graphs_.size()) - 1;
  }

  void launch(int graph) override {
    if (emulator::launches_left == 0) throw DeviceError("[emulation] the launch fails");
    if (emulator::launches_left > 0) --emulator::launches_left;
    const std::lock_guard<std::mutex> lock(waits_);
    const auto& kernels = graphs_[static_cast<std::size_t>(graph)];
    waiting_.insert(waiting_.end(), kernels.begin(), kernels.end());
  }

  void wait(int) override { run_all(); }

 private:
  void run_all() {
    const std::lock_guard<std::mutex> lock(waits_);
    while (!waiting_.empty()) {
      const auto work = waiting_.front();
      waiting_.pop_front();
      work();
    }
  }

  std::set<void*> memory_;
  std::vector<std::vector<std::function<void()>>> graphs_;
  std::deque<std::function<void()>> waiting_;
  std::mutex waits_;
};

}  // namespace

std::unique_ptr<FrameDevice> open_frame_device(int, Stream) {
  return std::make_unique<HostFrameDevice>();
}

}  // namespace detrx::cuda
