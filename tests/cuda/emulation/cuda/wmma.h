// Takes the place of csrc/cuda/wmma.h. Items are dealt to the lanes in an order that no device has, another for each
// kind of tile, so that a kernel which counts on an order answers wrongly.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "core/half.h"
#include "cuda/launch.h"

namespace detrx::cuda {

enum class Side { inner_rows, outer_rows };

// kStep is odd: 256 items are all met.
template <unsigned kStep>
struct Tile {
  float items[8];

  static unsigned place(unsigned i) {
    const auto lane = static_cast<unsigned>(emulator::block->running) % emulator::kWarp;
    return ((lane * 8 + i) * kStep + 3) % 256;
  }
};

struct TileA : Tile<37> {};
template <Side kSide>
struct TileB : Tile<kSide == Side::inner_rows ? 101 : 59> {};
struct TileSum : Tile<91> {};

inline void require_tile(const void* at, int pitch, int unit) {
  if (reinterpret_cast<std::uintptr_t>(at) % 32 == 0 && pitch % unit == 0) return;
  std::fprintf(stderr, "a tile at %p with pitch %d is not aligned\n", at, pitch);
  std::abort();
}

template <typename T, typename Loaded>
void load_tile(const T* from, int pitch, Loaded& to) {
  require_tile(from, pitch, sizeof(T) == 2 ? 8 : 4);
  for (unsigned i = 0; i < 8; ++i) {
    unsigned row = to.place(i) / 16, column = to.place(i) % 16;
    if constexpr (std::is_same_v<Loaded, TileB<Side::outer_rows>>) std::swap(row, column);
    to.items[i] = to_float(from[row * static_cast<unsigned>(pitch) + column]);
  }
}

inline void store_tile(const TileSum& from, float* to, int pitch) {
  require_tile(to, pitch, 4);
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned at = from.place(i);
    to[at / 16 * static_cast<unsigned>(pitch) + at % 16] = from.items[i];
  }
}

template <typename B>
void add_product(const TileA& a, const B& b, TileSum& to) {
  static float all[32][2][256];  // of each warp of the block, which runs alone
  const std::size_t warp = emulator::block->running / emulator::kWarp;
  for (unsigned i = 0; i < 8; ++i) {
    all[warp][0][a.place(i)] = a.items[i];
    all[warp][1][b.place(i)] = b.items[i];
  }
  emulator::wait(emulator::block->warps[warp]);
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned at = to.place(i), row = at / 16, column = at % 16;
    for (unsigned k = 0; k < 16; ++k) {
      to.items[i] += all[warp][0][row * 16 + k] * all[warp][1][k * 16 + column];
    }
  }
  emulator::wait(emulator::block->warps[warp]);
}

}  // namespace detrx::cuda
