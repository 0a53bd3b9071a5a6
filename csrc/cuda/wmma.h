// Products of 16 x 16 tiles on tensor cores, float16 in and float32 out, for sm_70 and later. In
// PTX's own words, because mma.h comes with nvcc and not with NVRTC. All lanes of a warp call.
// Which lane holds which item of a tile is the device's affair, but it is the same for all tiles of
// one kind. Tiles are read and written in shared memory, at addresses that 32 divides.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "cuda/launch.h"

namespace detrx::cuda {

struct TileA {  // rows x inner
  std::uint32_t items[8];
};

enum class Side { inner_rows, outer_rows };  // what a row of the memory behind a TileB is

template <Side kSide>  // inner x columns
struct TileB {
  std::uint32_t items[8];
};

struct TileSum {  // rows x columns
  float items[8];
};

__device__ inline std::uint32_t shared_address(const void* at) {
  std::uint32_t address;
  asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }"
      : "=r"(address)
      : "l"(at));
  return address;
}

// pitch: items from row to row, a multiple of 8 (of 4 for float).
#define DETRX_LOAD_TILE(kind)                                                                \
  asm volatile("wmma.load." kind                                                             \
               ".m16n16k16.shared.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"           \
               : "=r"(to.items[0]), "=r"(to.items[1]), "=r"(to.items[2]), "=r"(to.items[3]), \
                 "=r"(to.items[4]), "=r"(to.items[5]), "=r"(to.items[6]), "=r"(to.items[7])  \
               : "r"(shared_address(from)), "r"(pitch)                                       \
               : "memory")

__device__ inline void load_tile(const Half* from, int pitch, TileA& to) {
  DETRX_LOAD_TILE("a.sync.aligned.row");
}
__device__ inline void load_tile(const Half* from, int pitch, TileB<Side::inner_rows>& to) {
  DETRX_LOAD_TILE("b.sync.aligned.row");
}
__device__ inline void load_tile(const Half* from, int pitch, TileB<Side::outer_rows>& to) {
  DETRX_LOAD_TILE("b.sync.aligned.col");
}
#undef DETRX_LOAD_TILE

__device__ inline void load_tile(const float* from, int pitch, TileSum& to) {
  asm volatile(
      "wmma.load.c.sync.aligned.row.m16n16k16.shared.f32 "
      "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
      : "=f"(to.items[0]), "=f"(to.items[1]), "=f"(to.items[2]), "=f"(to.items[3]),
        "=f"(to.items[4]), "=f"(to.items[5]), "=f"(to.items[6]), "=f"(to.items[7])
      : "r"(shared_address(from)), "r"(pitch)
      : "memory");
}

__device__ inline void store_tile(const TileSum& from, float* to, int pitch) {
  asm volatile(
      "wmma.store.d.sync.aligned.row.m16n16k16.shared.f32 "
      "[%8], {%0, %1, %2, %3, %4, %5, %6, %7}, %9;"
      :
      : "f"(from.items[0]), "f"(from.items[1]), "f"(from.items[2]), "f"(from.items[3]),
        "f"(from.items[4]), "f"(from.items[5]), "f"(from.items[6]), "f"(from.items[7]),
        "r"(shared_address(to)), "r"(pitch)
      : "memory");
}

#define DETRX_ADD_PRODUCT(sides)                                                             \
  asm volatile("wmma.mma.sync.aligned." sides                                                \
               ".m16n16k16.f32.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, "                       \
               "{%8, %9, %10, %11, %12, %13, %14, %15}, "                                    \
               "{%16, %17, %18, %19, %20, %21, %22, %23}, "                                  \
               "{%0, %1, %2, %3, %4, %5, %6, %7};"                                           \
               : "+f"(to.items[0]), "+f"(to.items[1]), "+f"(to.items[2]), "+f"(to.items[3]), \
                 "+f"(to.items[4]), "+f"(to.items[5]), "+f"(to.items[6]), "+f"(to.items[7])  \
               : "r"(a.items[0]), "r"(a.items[1]), "r"(a.items[2]), "r"(a.items[3]),         \
                 "r"(a.items[4]), "r"(a.items[5]), "r"(a.items[6]), "r"(a.items[7]),         \
                 "r"(b.items[0]), "r"(b.items[1]), "r"(b.items[2]), "r"(b.items[3]),         \
                 "r"(b.items[4]), "r"(b.items[5]), "r"(b.items[6]), "r"(b.items[7]))

// to += a b
__device__ inline void add_product(const TileA& a, const TileB<Side::inner_rows>& b, TileSum& to) {
  DETRX_ADD_PRODUCT("row.row");
}
__device__ inline void add_product(const TileA& a, const TileB<Side::outer_rows>& b, TileSum& to) {
  DETRX_ADD_PRODUCT("row.col");
}
#undef DETRX_ADD_PRODUCT

}  // namespace detrx::cuda
