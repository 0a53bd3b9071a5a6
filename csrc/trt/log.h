// What TensorRT says of its own accord.
#pragma once

#include <ostream>
#include <string>

namespace detrx::trt {

// The warnings and errors since the last call, a line each; the first few where there are many.
std::string take_log();

// The same at the end of a message, taken only where the message is needed.
struct Said {};
inline std::ostream& operator<<(std::ostream& out, Said) { return out << take_log(); }

// The address of the logger, for createInferRuntime_INTERNAL. TensorRT keeps the first that it is
// given for as long as the process lives, so that this one is never destroyed.
void* logger() noexcept;

}  // namespace detrx::trt
