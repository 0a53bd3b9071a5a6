// The driver's own library, opened: it is there wherever a GPU can be used, is of no CUDA version,
// and lends the primary context that TensorRT, torch and pycuda use as well. Its functions are
// declared here as its documentation gives them, so that no header is needed.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "core/error.h"
#include "trt/device.h"

namespace detrx::trt {
namespace {

using Result = int;  // CUresult
using Address = unsigned long long;
using Context = void*;

constexpr int kMajor = 75;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kMinor = 76;
constexpr unsigned kNonBlocking = 1;  // CU_STREAM_NON_BLOCKING: not held up by the default stream

// What to do about a CUresult.
const char* advice(Result code) noexcept {
  switch (code) {
    case 2:  // CUDA_ERROR_OUT_OF_MEMORY
      return "end what else uses the GPU, or export the engine for fewer images or a smaller "
             "canvas";
    case 100:  // CUDA_ERROR_NO_DEVICE
      return "`nvidia-smi` must list a GPU, and CUDA_VISIBLE_DEVICES must not hide it";
    default:
      return "see `detrx doctor`; after a failure of the GPU itself only a new process can use it";
  }
}

struct Driver {
  Result (*init)(unsigned);
  Result (*version)(int*);
  Result (*device)(int*, int);
  Result (*device_name)(char*, int, int);
  Result (*attribute)(int*, int, int);
  Result (*retain)(Context*, int);
  Result (*release)(int);
  Result (*push)(Context);
  Result (*pop)(Context*);
  Result (*allocate)(Address*, std::size_t);
  Result (*free)(Address);
  Result (*allocate_host)(void**, std::size_t, unsigned);
  Result (*free_host)(void*);
  Result (*make_stream)(Stream*, unsigned);
  Result (*free_stream)(Stream);
  Result (*wait)(Stream);
  Result (*upload)(Address, const void*, std::size_t, Stream);
  Result (*download)(void*, Address, std::size_t, Stream);
  Result (*error_name)(Result, const char**);
  Result (*error_text)(Result, const char**);
};

template <typename Function>
void find(void* handle, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(handle, name));
  if (function == nullptr) {
    throw DeviceError(std::string("[cuda] the NVIDIA driver lacks ") + name +
                      "; install a newer one");
  }
}

Driver open_driver() {
  const char* const named = std::getenv("DETRX_CUDA_DRIVER");
  const char* const library = named != nullptr ? named : "libcuda.so.1";
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw DeviceError(std::string("[cuda] there is no NVIDIA driver (") + library +
                      "). `nvidia-smi` must list a GPU; in a container, pass --gpus all (Jetson: "
                      "--runtime nvidia); DETRX_CUDA_DRIVER names a libcuda.so.1 elsewhere");
  }
  Driver driver{};
  find(handle, "cuInit", driver.init);
  find(handle, "cuDriverGetVersion", driver.version);
  find(handle, "cuDeviceGet", driver.device);
  find(handle, "cuDeviceGetName", driver.device_name);
  find(handle, "cuDeviceGetAttribute", driver.attribute);
  find(handle, "cuDevicePrimaryCtxRetain", driver.retain);
  find(handle, "cuDevicePrimaryCtxRelease_v2", driver.release);
  find(handle, "cuCtxPushCurrent_v2", driver.push);
  find(handle, "cuCtxPopCurrent_v2", driver.pop);
  find(handle, "cuMemAlloc_v2", driver.allocate);
  find(handle, "cuMemFree_v2", driver.free);
  find(handle, "cuMemHostAlloc", driver.allocate_host);
  find(handle, "cuMemFreeHost", driver.free_host);
  find(handle, "cuStreamCreate", driver.make_stream);
  find(handle, "cuStreamDestroy_v2", driver.free_stream);
  find(handle, "cuStreamSynchronize", driver.wait);
  find(handle, "cuMemcpyHtoDAsync_v2", driver.upload);
  find(handle, "cuMemcpyDtoHAsync_v2", driver.download);
  find(handle, "cuGetErrorName", driver.error_name);
  find(handle, "cuGetErrorString", driver.error_text);
  return driver;
}

class CudaDevice final : public DeviceInterface {
 public:
  explicit CudaDevice(int index) : driver_(open_driver()) {
    check(driver_.init(0), "start the driver");
    check(driver_.device(&device_, index), "find the device");
    check(driver_.retain(&context_, device_), "take the device");
  }
  ~CudaDevice() override { driver_.release(device_); }

  std::string name() const override {
    char text[256] = "";
    int version = 0;
    driver_.device_name(text, sizeof(text), device_);
    driver_.version(&version);
    std::ostringstream out;
    out << text << ", compute capability " << capability() << ", driver for CUDA " << version / 1000
        << "." << version % 1000 / 10;
    return out.str();
  }

  std::string capability() const override {
    int major = 0, minor = 0;
    check(driver_.attribute(&major, kMajor, device_), "ask the device");
    check(driver_.attribute(&minor, kMinor, device_), "ask the device");
    return std::to_string(major) + "." + std::to_string(minor);
  }

  void enter() override { check(driver_.push(context_), "enter the device"); }
  void leave() noexcept override {
    Context left = nullptr;
    driver_.pop(&left);
  }

  void* allocate(std::size_t bytes, Place place) override {
    const std::string what = "allocate " + std::to_string(bytes) + " bytes";
    if (place == Place::host) {
      void* memory = nullptr;
      check(driver_.allocate_host(&memory, bytes, 0), what.c_str());
      return memory;
    }
    Address address = 0;
    check(driver_.allocate(&address, bytes), what.c_str());
    return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
  }

  void release(void* memory, Place place) noexcept override {
    const OnIfPossible on(*this);
    if (place == Place::host) {
      driver_.free_host(memory);
    } else {
      driver_.free(address_of(memory));
    }
  }

  Stream make_stream() override {
    Stream stream = nullptr;
    check(driver_.make_stream(&stream, kNonBlocking), "make a stream");
    return stream;
  }
  void release(Stream stream) noexcept override {
    const OnIfPossible on(*this);
    driver_.free_stream(stream);
  }

  void upload(void* to, const void* from, std::size_t bytes, Stream stream) override {
    check(driver_.upload(address_of(to), from, bytes, stream), "copy to the device");
  }
  void download(void* to, const void* from, std::size_t bytes, Stream stream) override {
    check(driver_.download(to, address_of(from), bytes, stream), "copy from the device");
  }
  void wait(Stream stream) override { check(driver_.wait(stream), "wait for the device"); }

 private:
  static Address address_of(const void* memory) noexcept {
    return static_cast<Address>(reinterpret_cast<std::uintptr_t>(memory));
  }

  void check(Result code, const char* what) const {
    if (code == 0) return;
    const char* name = nullptr;
    const char* text = nullptr;
    driver_.error_name(code, &name);
    driver_.error_text(code, &text);
    std::ostringstream message;
    message << "[cuda] cannot " << what << ": " << (text != nullptr ? text : "unknown error")
            << " (" << (name != nullptr ? name : "no name") << ", " << code << "); "
            << advice(code);
    throw DeviceError(message.str());
  }

  Driver driver_;
  int device_ = 0;
  Context context_ = nullptr;
};

}  // namespace

std::shared_ptr<DeviceInterface> make_cuda_device(int index) {
  return std::make_shared<CudaDevice>(index);
}

}  // namespace detrx::trt
