// A driver of our own, what cuda_device.cpp opens under test. The device's memory is memory of this process, so that
// the TensorRT of ours reads it. It counts what has not been given back, wants a context where the real one does, and
// fails where it is told to.
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using Address = unsigned long long;

constexpr std::align_val_t kAlign{256};
constexpr int kNoDevice = 100, kNoSuchDevice = 101, kNoContext = 201;

int alive = 0;
thread_local int depth = 0;  // of the stack of contexts
std::string failing;
int code = 0;

int failure(const char* function) { return code != 0 && failing == function ? code : 0; }

int inside(const char* function) { return depth > 0 ? failure(function) : kNoContext; }

int allocate(void** memory, std::size_t bytes, const char* function) {
  if (const int wrong = inside(function)) return wrong;
  *memory = ::operator new(bytes, kAlign);
  ++alive;
  return 0;
}

int release(void* memory, const char* function) {
  if (const int wrong = inside(function)) return wrong;
  ::operator delete(memory, kAlign);
  --alive;
  return 0;
}

int copy(void* to, const void* from, std::size_t bytes, const char* function) {
  if (const int wrong = inside(function)) return wrong;
  std::memcpy(to, from, bytes);
  return 0;
}

}  // namespace

// From now on the function answers with the code; 0 ends it.
EXPORT void fake_fail(const char* function, int wanted) {
  failing = function;
  code = wanted;
}
EXPORT int fake_alive() { return alive; }
EXPORT int fake_depth() { return depth; }

EXPORT int cuInit(unsigned) {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible != nullptr && *visible == 0 ? kNoDevice : failure("cuInit");
}
EXPORT int cuDriverGetVersion(int* version) {
  *version = 12060;
  return 0;
}
EXPORT int cuDeviceGet(int* device, int index) {
  *device = 7;
  return index == 0 ? failure("cuDeviceGet") : kNoSuchDevice;
}
EXPORT int cuDeviceGetName(char* text, int, int) {
  std::strcpy(text, "Orin");
  return 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 8 : 7;
  return failure("cuDeviceGetAttribute");
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  if (const int wrong = failure("cuDevicePrimaryCtxRetain")) return wrong;
  ++alive;
  *context = &alive;
  return 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
  --alive;
  return device == 7 ? 0 : kNoSuchDevice;
}
EXPORT int cuCtxPushCurrent_v2(void* context) {
  if (const int wrong = failure("cuCtxPushCurrent_v2")) return wrong;
  ++depth;
  return context == &alive ? 0 : kNoContext;
}
EXPORT int cuCtxPopCurrent_v2(void** context) {
  --depth;
  *context = &alive;
  return 0;
}
#if !defined(FAKE_WITHOUT_MEMORY)
EXPORT int cuMemAlloc_v2(Address* address, std::size_t bytes) {
  void* memory = nullptr;
  const int wrong = allocate(&memory, bytes, "cuMemAlloc_v2");
  *address = reinterpret_cast<Address>(memory);
  return wrong;
}
#endif
EXPORT int cuMemFree_v2(Address address) {
  return release(reinterpret_cast<void*>(address), "cuMemFree_v2");
}
EXPORT int cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
  return allocate(memory, bytes, "cuMemHostAlloc");
}
EXPORT int cuMemFreeHost(void* memory) { return release(memory, "cuMemFreeHost"); }
EXPORT int cuStreamCreate(void** stream, unsigned flags) {
  if (const int wrong = inside("cuStreamCreate")) return wrong;
  if (flags != 1) std::abort();
  ++alive;
  *stream = &depth;
  return 0;
}
EXPORT int cuStreamDestroy_v2(void*) {
  if (const int wrong = inside("cuStreamDestroy_v2")) return wrong;
  --alive;
  return 0;
}
EXPORT int cuStreamSynchronize(void*) { return inside("cuStreamSynchronize"); }
EXPORT int cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, void*) {
  return copy(reinterpret_cast<void*>(to), from, bytes, "cuMemcpyHtoDAsync_v2");
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, void*) {
  return copy(to, reinterpret_cast<const void*>(from), bytes, "cuMemcpyDtoHAsync_v2");
}
EXPORT int cuGetErrorName(int number, const char** name) {
  if (number == 2) *name = "CUDA_ERROR_OUT_OF_MEMORY";
  if (number == kNoDevice) *name = "CUDA_ERROR_NO_DEVICE";
  if (number == 719) *name = "CUDA_ERROR_LAUNCH_FAILED";
  return 0;
}
EXPORT int cuGetErrorString(int number, const char** text) {
  if (number == 2) *text = "out of memory";
  if (number == kNoDevice) *text = "no CUDA-capable device is detected";
  if (number == 719) *text = "unspecified launch failure";
  return 0;
}
