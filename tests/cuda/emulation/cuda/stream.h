// Takes the place of csrc/cuda/stream.h: what is started is done at once.
#pragma once

namespace detrx::cuda {

using Stream = void*;

}  // namespace detrx::cuda
