// Pictures that a camera or a decoder left in a DMABUF (on Jetson: NVMM memory), for the GPU to
// read where they lie: EGL makes an image of the file descriptor, and CUDA maps the image. Built
// with DETRX_NVMM; no header of EGL, CUDA or L4T is needed, their libraries are opened.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "core/picture.h"
#include "cuda/letterboxing.h"

namespace detrx::cuda {

struct Dmabuf {
  int fd = -1;
  PixelFormat format = PixelFormat::nv12;  // or rgba, bgra, yuyv, grey
  Colours colours = Colours::bt601;
  std::int64_t height = 0, width = 0;
  std::array<std::int64_t, 2> offset{}, pitch{};  // bytes; of the plane and of nv12's chroma
};

// One thread at a time. Cameras hand out the same few buffers in turn, and so each is mapped when
// it is seen first and stays mapped: call forget before a file descriptor is closed.
class DmabufReader {
 public:
  // Throws DeviceError where there is no EGL, no driver, or no such device.
  explicit DmabufReader(int device);
  ~DmabufReader();
  DmabufReader(const DmabufReader&) = delete;
  DmabufReader& operator=(const DmabufReader&) = delete;

  // The picture as the letterbox takes it, in pitched memory or in textures, as the driver has it.
  // Throws ArgumentError for what is no picture, DeviceError where EGL or CUDA refuse the buffer.
  DevicePicture map(const Dmabuf& buffer);

  void forget(int fd) noexcept;

 private:
  struct Libraries;
  struct Mapped;
  std::unique_ptr<Libraries> libraries_;
};

}  // namespace detrx::cuda
