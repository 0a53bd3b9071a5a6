// What the frame graph asks of a device. The tests have one that lies in the memory of the host.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "cuda/launch.h"

namespace detrx::cuda {

// Memory and graphs live as long as this does; its end waits for what runs. Where a call fails, it
// throws DeviceError.
class FrameDevice {
 public:
  FrameDevice() = default;
  FrameDevice(const FrameDevice&) = delete;
  FrameDevice& operator=(const FrameDevice&) = delete;
  virtual ~FrameDevice() = default;

  // What the host and the device see of one thing.
  struct Shared {
    void* host;
    void* device;
  };
  // What the device writes and the host reads: pinned, mapped memory, of which nothing is copied.
  virtual Shared outlet(std::size_t bytes) = 0;
  // What the host writes and the device reads: the same where both have one memory (Jetson); else
  // memory of each, for a kernel that reads pixels one by one across a bus would wait for each.
  virtual Shared inlet(std::size_t bytes) = 0;
  // Brings the first bytes of an inlet to the device, in the order of the launches.
  virtual void send(const Shared& inlet, std::size_t bytes) = 0;
  // Gives an inlet back that no launch reads any more.
  virtual void release(const Shared& inlet) noexcept = 0;

  virtual void* allocate(std::size_t bytes) = 0;

  // Does the work once, as libraries want it before a capture, waits, then captures it. Answers the
  // number of the graph, counted from 0.
  virtual int capture(const std::function<void(Stream)>& work) = 0;

  // Launches run one after the other. `wait` returns when the last launch of that graph is done.
  virtual void launch(int graph) = 0;
  virtual void wait(int graph) = 0;
};

// stream: where all of it is enqueued, null for one of its own. After the last launch was waited
// for, the stream is not touched again.
std::unique_ptr<FrameDevice> open_frame_device(int device, Stream stream);

}  // namespace detrx::cuda
