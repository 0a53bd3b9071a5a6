// Memory and the order of work, as a session needs them. A GPU, or the memory of this process: with
// the latter the whole session runs under test on any machine.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace detrx::trt {

using Stream = void*;  // a cudaStream_t

// Where memory lies: with the device, or with the host where the device reads it fastest.
enum class Place { device, host };

class DeviceInterface {
 public:
  DeviceInterface() = default;
  virtual ~DeviceInterface() = default;
  DeviceInterface(const DeviceInterface&) = delete;
  DeviceInterface& operator=(const DeviceInterface&) = delete;

  // As "Orin, compute capability 8.7, driver 12.6".
  virtual std::string name() const = 0;
  // As "8.7"; empty where there is none.
  virtual std::string capability() const = 0;

  // Makes it the device of the calling thread, until leave.
  virtual void enter() = 0;
  virtual void leave() noexcept = 0;

  // What is released need not be released between enter and leave.
  virtual void* allocate(std::size_t bytes, Place place) = 0;
  virtual void release(void* memory, Place place) noexcept = 0;
  virtual Stream make_stream() = 0;
  virtual void release(Stream stream) noexcept = 0;

  // In the order of the stream; the host's memory must stay until wait.
  virtual void upload(void* to, const void* from, std::size_t bytes, Stream stream) = 0;
  virtual void download(void* to, const void* from, std::size_t bytes, Stream stream) = 0;
  virtual void wait(Stream stream) = 0;
};

// Throws DeviceError where there is no driver or no such GPU. DETRX_CUDA_DRIVER names the driver's
// library where it is not libcuda.so.1 of the system.
std::shared_ptr<DeviceInterface> make_cuda_device(int index);
std::shared_ptr<DeviceInterface> make_host_device();

// The length of a scope on a device.
class On {
 public:
  explicit On(DeviceInterface& device) : device_(device) { device_.enter(); }
  ~On() { device_.leave(); }
  On(const On&) = delete;
  On& operator=(const On&) = delete;

 private:
  DeviceInterface& device_;
};

// The same for destructors, which go on where the device is lost.
class OnIfPossible {
 public:
  explicit OnIfPossible(DeviceInterface& device) noexcept : device_(&device) {
    try {
      device.enter();
    } catch (const std::exception&) {
      device_ = nullptr;
    }
  }
  ~OnIfPossible() {
    if (device_ != nullptr) device_->leave();
  }
  OnIfPossible(const OnIfPossible&) = delete;
  OnIfPossible& operator=(const OnIfPossible&) = delete;

 private:
  DeviceInterface* device_;
};

// Memory that is given back with its holder.
class Memory {
 public:
  Memory() = default;
  Memory(DeviceInterface& device, std::size_t bytes, Place place)
      : device_(&device), place_(place), address_(device.allocate(bytes, place)) {}
  ~Memory() {
    if (address_ != nullptr) device_->release(address_, place_);
  }
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(place_, other.place_);
    std::swap(address_, other.address_);
    return *this;
  }

  void* get() const noexcept { return address_; }

 private:
  DeviceInterface* device_ = nullptr;
  Place place_ = Place::device;
  void* address_ = nullptr;
};

}  // namespace detrx::trt
