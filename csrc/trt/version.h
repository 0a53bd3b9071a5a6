// The version of a TensorRT library, read from the one number that every library answers with.
#pragma once

#include <string>

namespace detrx::trt {

struct Version {
  int major = 0;
  int minor = 0;
  int patch = 0;
  bool rtx = false;  // TensorRT-RTX, which counts from 1 and has another ABI

  std::string text() const {
    return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  }
  std::string name() const { return (rtx ? "TensorRT-RTX " : "TensorRT ") + text(); }
};

// What getInferLibVersion answers: 8502 is TensorRT 8.5.2, 100300 is TensorRT 10.3.0, and 10701,
// which lies between the two ways of counting, is TensorRT-RTX 1.7.1.
inline Version version_of(int number) noexcept {
  if (number < 10000) return {number / 1000, number / 100 % 10, number % 100, false};
  return {number / 10000, number / 100 % 100, number % 100, number < 100000};
}

// Whether code compiled against the headers of one version may call a library of another: within a
// major, TensorRT only ever adds functions behind those that were there; across majors it moves
// them.
inline bool serves(const Version& library, const Version& compiled) noexcept {
  return !library.rtx && library.major == compiled.major && library.minor >= compiled.minor;
}

}  // namespace detrx::trt
