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

  // One memory under two addresses, so that nothing is copied: pinned, mapped.
  struct Shared {
    void* host;
    void* device;
  };
  virtual Shared share(std::size_t bytes) = 0;

  virtual void* allocate(std::size_t bytes) = 0;
  virtual void upload(void* to, const void* from, std::size_t bytes) = 0;  // waits

  // Does the work once, as libraries want it before a capture, waits, then captures it. Answers the
  // number of the graph, counted from 0.
  virtual int capture(const std::function<void(Stream)>& work) = 0;

  // Launches run one after the other. `wait` returns when the last launch of that graph is done.
  virtual void launch(int graph) = 0;
  virtual bool done(int graph) = 0;
  virtual void wait(int graph) = 0;
};

std::unique_ptr<FrameDevice> open_frame_device(int device);

}  // namespace detrx::cuda
