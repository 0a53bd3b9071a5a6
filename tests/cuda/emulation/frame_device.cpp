// Takes the place of csrc/cuda/frame_device.cpp: a graph is its work, done when somebody waits, so
// that memory which is used again too early shows in the answers.
#include "cuda/frame_device.h"

#include <deque>
#include <vector>

#include "core/error.h"
#include "emulator.h"

namespace detrx::cuda {
namespace {

class HostFrameDevice final : public FrameDevice {
 public:
  Shared share(std::size_t bytes) override {
    void* const memory = allocate(bytes);
    return {memory, memory};
  }

  void* allocate(std::size_t bytes) override {
    ++emulator::allocations;
    memory_.push_back(std::make_unique<unsigned char[]>(bytes));
    return memory_.back().get();
  }

  void upload(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }

  int capture(const std::function<void(Stream)>& work) override {
    work(nullptr);
    recorded_ = {};
    emulator::recorder = &recorded_;
    try {
      work(nullptr);
    } catch (...) {
      emulator::recorder = nullptr;
      throw;
    }
    emulator::recorder = nullptr;
    graphs_.push_back(recorded_);
    return static_cast<int>(graphs_.size()) - 1;
  }

  void launch(int graph) override {
    if (emulator::launches_left == 0) throw DeviceError("[emulation] the launch fails");
    if (emulator::launches_left > 0) --emulator::launches_left;
    waiting_.push_back(graph);
  }

  bool done(int graph) override {
    for (const int one : waiting_) {
      if (one == graph) return false;
    }
    return true;
  }

  void wait(int graph) override {
    while (!done(graph)) {
      for (const auto& kernel : graphs_[static_cast<std::size_t>(waiting_.front())]) kernel();
      waiting_.pop_front();
    }
  }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> memory_;
  std::vector<std::function<void()>> recorded_;
  std::vector<std::vector<std::function<void()>>> graphs_;
  std::deque<int> waiting_;
};

}  // namespace

std::unique_ptr<FrameDevice> open_frame_device(int) { return std::make_unique<HostFrameDevice>(); }

}  // namespace detrx::cuda
