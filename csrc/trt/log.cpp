#include "trt/log.h"

#include <mutex>
#include <string_view>
#include <utility>

#include "trt/vendor.h"

namespace detrx::trt {
namespace {

constexpr std::size_t kMost = 4096;  // characters kept

class Log final : public nvinfer1::ILogger {
 public:
  Log() { lines_.reserve(kMost); }

  // Called from any thread of TensorRT's. The memory is there already: nothing throws.
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kWARNING || message == nullptr) return;
    const std::string_view word = severity == Severity::kWARNING ? "warning: " : "error: ";
    const std::string_view text = message;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lines_.size() + word.size() + text.size() + 1 > kMost) return;
    lines_.append(word).append(text).append("\n");
  }

  std::string take() {
    std::string fresh;
    fresh.reserve(kMost);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::swap(fresh, lines_);
    return fresh;
  }

 private:
  std::mutex mutex_;
  std::string lines_;
};

Log& ours() noexcept {
  static Log& log = *new Log;
  return log;
}

}  // namespace

std::string take_log() { return ours().take(); }

void* logger() noexcept { return static_cast<nvinfer1::ILogger*>(&ours()); }

}  // namespace detrx::trt
