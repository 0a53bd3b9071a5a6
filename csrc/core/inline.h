// Kernels are written once and compiled for several instruction sets: the body is inlined into an
// entry function per set, and the entry is chosen when it is called. What a CUDA kernel shares with
// the CPU is marked DETRX_HD.
#pragma once

#if !defined(__CUDACC__)
#include <cstdlib>
#include <cstring>
#endif

#define DETRX_INLINE inline __attribute__((always_inline))

#if defined(__CUDACC__)
#define DETRX_HD __host__ __device__
#else
#define DETRX_HD
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define DETRX_X86 1
#define DETRX_AVX2 __attribute__((target("avx2,fma")))
#define DETRX_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")))
#else
#define DETRX_X86 0
#endif

#if !defined(__CUDACC__)  // asked by the CPU's kernels alone
namespace detrx {

// The widest instruction set that may be used, 0 (the baseline), 2 (AVX2) or 512 (AVX-512): what
// DETRX_ISA=plain or avx2 says, read once, so that a test sees all bodies on one machine.
inline int widest_allowed() noexcept {
  static const int widest = [] {
    const char* const named = std::getenv("DETRX_ISA");
    if (named == nullptr) return 512;
    if (std::strcmp(named, "plain") == 0) return 0;
    return std::strcmp(named, "avx2") == 0 ? 2 : 512;
  }();
  return widest;
}

// Whether this machine runs functions marked DETRX_AVX2.
inline bool has_avx2() noexcept {
#if DETRX_X86
  static const bool found =
      widest_allowed() >= 2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return found;
#else
  return false;
#endif
}

// Whether this machine runs functions marked DETRX_AVX512.
inline bool has_avx512() noexcept {
#if DETRX_X86
  static const bool found =
      widest_allowed() >= 512 && has_avx2() && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl");
  return found;
#else
  return false;
#endif
}

}  // namespace detrx
#endif
