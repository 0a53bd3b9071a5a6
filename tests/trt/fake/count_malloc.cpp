// Loaded before everything else, it counts what glibc is asked for memory.
#include <atomic>
#include <cerrno>
#include <cstddef>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {
std::atomic<long> count{0};
}

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT long detrx_allocations() { return count; }

EXPORT void* malloc(std::size_t size) {
  ++count;
  return __libc_malloc(size);
}
EXPORT void* calloc(std::size_t items, std::size_t size) {
  ++count;
  return __libc_calloc(items, size);
}
EXPORT void* realloc(void* memory, std::size_t size) {
  ++count;
  return __libc_realloc(memory, size);
}
EXPORT void* memalign(std::size_t align, std::size_t size) {
  ++count;
  return __libc_memalign(align, size);
}
EXPORT void* aligned_alloc(std::size_t align, std::size_t size) { return memalign(align, size); }
EXPORT int posix_memalign(void** memory, std::size_t align, std::size_t size) {
  *memory = memalign(align, size);
  return *memory == nullptr ? ENOMEM : 0;
}
