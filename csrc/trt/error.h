// How the TensorRT runtime refuses, beside ArgumentError and DeviceError of core/error.h.
#pragma once

#include <sstream>
#include <stdexcept>

namespace detrx::trt {

// An engine or a library that does not fit: detrx.errors.EngineError in Python.
struct EngineError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws EngineError made of the parts unless ok.
template <typename... Parts>
inline void expect(bool ok, const Parts&... parts) {
  if (ok) return;
  std::ostringstream message;
  (message << ... << parts);
  throw EngineError(message.str());
}

// No library to open at all: detrx.errors.MissingBackendError in Python.
struct MissingLibrary : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace detrx::trt
