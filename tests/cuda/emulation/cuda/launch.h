// Takes the place of csrc/cuda/launch.h: a kernel is run to its end, at once.
#pragma once

#include <cstdint>

#include "core/error.h"
#include "core/inline.h"
#include "cuda/stream.h"
#include "emulator.h"

#define DETRX_SHARED_MEMORY(name) unsigned char* const name = emulator::block->shared.data()

namespace detrx::cuda {

struct Grid {
  std::int64_t x = 1;
  std::int64_t y = 1;
  std::int64_t z = 1;
};

template <typename Problem>
void launch(const char* where, void (*kernel)(Problem), Grid grid, int threads, int shared, Stream,
            const Problem& problem) {
  require(grid.y <= 65535 && grid.z <= 65535 && shared <= 48 * 1024, "[", where,
          "] no device takes that");
  const emulator::Place blocks{static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                               static_cast<unsigned>(grid.z)};
  emulator::enqueue([=] {
    emulator::run_grid(blocks, static_cast<unsigned>(threads), static_cast<std::size_t>(shared),
                       [&] { kernel(problem); });
  });
}

}  // namespace detrx::cuda
