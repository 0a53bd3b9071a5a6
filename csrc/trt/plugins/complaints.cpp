#include "trt/plugins/complaints.h"

#include <atomic>

#include "trt/plugins/creators.h"

namespace detrx::trt {
namespace {

std::atomic<nvinfer1::ILogger*> given{nullptr};
std::atomic<LoggerFinder*> finder{nullptr};

}  // namespace

void complain_to(nvinfer1::ILogger* logger) noexcept {
  if (logger != nullptr) given = logger;
}

// Whoever made the finder declared its class elsewhere, as TensorRT does: the same functions,
// another name, which a sanitizer would take for a mistake.
__attribute__((no_sanitize("vptr"))) void complain(const char* message) noexcept {
  LoggerFinder* const asked = finder;
  nvinfer1::ILogger* const logger = asked != nullptr ? asked->findLogger() : given.load();
  if (logger != nullptr) logger->log(nvinfer1::ILogger::Severity::kERROR, message);
}

}  // namespace detrx::trt

void setLoggerFinder(detrx::trt::LoggerFinder* found) noexcept { detrx::trt::finder = found; }
