#include <cstring>
#include <new>

#include "trt/device.h"

namespace detrx::trt {
namespace {

constexpr std::align_val_t kAlign{256};  // as cudaMalloc

// Copies at once: what a stream would do later has been done already.
class HostDevice final : public DeviceInterface {
 public:
  std::string name() const override { return "the memory of this process"; }
  std::string capability() const override { return ""; }
  void enter() override {}
  void leave() noexcept override {}

  void* allocate(std::size_t bytes, Place /*place*/) override {
    return ::operator new(bytes, kAlign);
  }
  void release(void* memory, Place /*place*/) noexcept override {
    ::operator delete(memory, kAlign);
  }
  Stream make_stream() override { return nullptr; }
  void release(Stream /*stream*/) noexcept override {}

  void upload(void* to, const void* from, std::size_t bytes, Stream /*stream*/) override {
    std::memcpy(to, from, bytes);
  }
  void download(void* to, const void* from, std::size_t bytes, Stream /*stream*/) override {
    std::memcpy(to, from, bytes);
  }
  void wait(Stream /*stream*/) override {}
};

}  // namespace

std::shared_ptr<DeviceInterface> make_host_device() { return std::make_shared<HostDevice>(); }

}  // namespace detrx::trt
