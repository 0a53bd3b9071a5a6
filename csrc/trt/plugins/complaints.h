// What a plugin has to say to TensorRT's logger. Nothing is thrown through TensorRT.
#pragma once

#include <exception>
#include <utility>

#include "trt/vendor.h"

namespace detrx::trt {

// The logger for all that follows; null keeps the one before.
void complain_to(nvinfer1::ILogger* logger) noexcept;

// Logs an error. Without a logger it is lost: TensorRT says itself which plugin failed.
void complain(const char* message) noexcept;

// What fn answers, or `otherwise` once what it throws has been logged.
template <typename Fn, typename Answer>
Answer guarded(Answer otherwise, Fn&& fn) noexcept {
  try {
    return std::forward<Fn>(fn)();
  } catch (const std::exception& error) {
    complain(error.what());
  } catch (...) {
    complain("[plugins] failed");
  }
  return otherwise;
}

}  // namespace detrx::trt
