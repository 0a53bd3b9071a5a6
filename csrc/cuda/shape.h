// Sizes that hosts and devices share.
#pragma once

#include <cstdint>

#include "core/inline.h"

namespace detrx::cuda {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;

DETRX_HD constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace detrx::cuda
