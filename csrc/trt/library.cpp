#include "trt/library.h"

#include <dlfcn.h>

#include <cstdint>

#include "trt/error.h"
#include "trt/log.h"
#include "trt/vendor.h"

namespace detrx::trt {
namespace {

using AskVersion = std::int32_t();
using MakeRuntime = void*(void* logger, std::int32_t version);
using AskRegistry = nvinfer1::IPluginRegistry*();
using RegisterPlugins = std::int32_t(void* registry, void* logger);

constexpr std::uintptr_t kNoObject = 4096;  // below this address there is never one

template <typename Function>
Function* symbol(void* handle, const char* name) noexcept {
  return reinterpret_cast<Function*>(dlsym(handle, name));
}

std::string refusal(const Version& found) {
  if (found.rtx) {
    return "is " + found.name() +
           ", whose engines and functions are others; it runs through its "
           "Python package: pip install tensorrt-rtx pycuda";
  }
  return "is " + found.name() + ", and this adapter was compiled for " + kCompiled.name() +
         " and later of the same major";
}

}  // namespace

Version compiled_version() noexcept { return kCompiled; }

void Library::Destroy::operator()(nvinfer1::IRuntime* runtime) const noexcept { delete runtime; }

Library::Library(const std::vector<std::string>& names) {
  std::string reasons;
  bool seen = false;
  for (const std::string& name : names) {
    std::string reason;
    if (open(name, reason, seen)) return;
    reasons += "\n  " + name + ": " + reason;
  }
  const std::string message = "[tensorrt] no " + kCompiled.name() + " to open. Tried:" + reasons;
  if (seen) throw EngineError(message);
  throw MissingLibrary(message);
}

Library::~Library() = default;

// Takes the library and answers true, or says why not; seen becomes true where there is a file.
bool Library::open(const std::string& name, std::string& reason, bool& seen) {
  void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = dlerror();
    reason = why != nullptr ? why : "cannot be opened";
    return false;
  }
  seen = true;
  auto* const ask = symbol<AskVersion>(handle, "getInferLibVersion");
  if (ask == nullptr) {
    reason = "is no TensorRT: it has no getInferLibVersion";
    return false;
  }
  version_ = version_of(ask());
  if (!serves(version_, kCompiled)) {
    reason = refusal(version_);
    return false;
  }
  if (symbol<MakeRuntime>(handle, "createInferRuntime_INTERNAL") == nullptr) {
    reason = "is " + version_.name() + " without createInferRuntime_INTERNAL; install it again";
    return false;
  }
  handle_ = handle;
  path_ = name;
  return true;
}

void Library::load_plugins(const std::string& path) {
  auto* const ask = symbol<AskRegistry>(handle_, "getPluginRegistry");
  expect(ask != nullptr, "[plugins] ", version_.name(), " (", path_, ") takes no plugins");
  void* const plugins = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const char* const why = plugins == nullptr ? dlerror() : nullptr;
  expect(plugins != nullptr, "[plugins] ", path, " cannot be opened: ", why != nullptr ? why : "");
  auto* const take = symbol<RegisterPlugins>(plugins, "detrxRegisterPlugins");
  expect(take != nullptr, "[plugins] ", path, " is no library of detrx's plugins");
  take_log();
  expect(take(ask(), logger()) > 0, "[plugins] ", version_.name(), " takes none of those in ", path,
         ":\n", Said{});
}

nvinfer1::IRuntime& Library::runtime() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!runtime_) {
    auto* const make = symbol<MakeRuntime>(handle_, "createInferRuntime_INTERNAL");
    take_log();
    void* const made = make(logger(), NV_TENSORRT_VERSION);
    // Without a driver, the lean library of TensorRT 11.4 answers with a null pointer to which the
    // place of a base class has been added.
    if (reinterpret_cast<std::uintptr_t>(made) < kNoObject) {
      throw EngineError("[tensorrt] " + version_.name() + " (" + path_ +
                        ") does not start; `nvidia-smi` must list a GPU, and its driver must be "
                        "new enough for it.\n" +
                        take_log());
    }
    runtime_.reset(static_cast<nvinfer1::IRuntime*>(made));
  }
  return *runtime_;
}

}  // namespace detrx::trt
