// Kernels are written once and compiled for several instruction sets: the body is inlined into an
// entry function per set, and the entry is chosen when it is called.
#pragma once

#define DETRX_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__)
#define DETRX_X86 1
#define DETRX_AVX2 __attribute__((target("avx2,fma")))
#else
#define DETRX_X86 0
#endif

namespace detrx {

// Whether this machine runs functions marked DETRX_AVX2.
inline bool has_avx2() noexcept {
#if DETRX_X86
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return found;
#else
  return false;
#endif
}

}  // namespace detrx
