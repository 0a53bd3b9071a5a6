// The two ways in which native code refuses: a caller's mistake, and a device that does not answer.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace detrx {

// A caller's mistake; ValueError in Python.
struct ArgumentError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// A device that is missing, lost or out of memory; RuntimeError in Python.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws ArgumentError made of the parts unless ok. The parts are joined only then.
template <typename... Parts>
inline void require(bool ok, const Parts&... parts) {
  if (ok) return;
  std::ostringstream message;
  (message << ... << parts);
  throw ArgumentError(message.str());
}

}  // namespace detrx
