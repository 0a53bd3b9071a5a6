#include "trt/plugins/creators.h"

#include <dlfcn.h>

#include <mutex>
#include <set>

#include "trt/plugins/complaints.h"

namespace detrx::trt {
namespace {

const std::vector<Creator*>& creators() {
  // Never destroyed: TensorRT may ask while the process ends.
  static const auto& all = *[] {
    auto* const made = new std::vector<Creator*>;
    for (const Kind* const kind : kinds()) made->push_back(make_creator(*kind).release());
    return made;
  }();
  return all;
}

Creator* const* list_creators(std::int32_t& count) noexcept {
  count = 0;
  return guarded(static_cast<Creator* const*>(nullptr), [&count] {
    count = static_cast<std::int32_t>(creators().size());
    return creators().data();
  });
}

std::int32_t register_with(nvinfer1::IPluginRegistry& registry) {
  static std::mutex mutex;
  static std::set<nvinfer1::IPluginRegistry*> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto all = static_cast<std::int32_t>(creators().size());
  if (known.count(&registry) > 0) return all;
  std::int32_t taken = 0;
  for (Creator* const creator : creators()) {
    taken += registry.registerCreator(*creator, kPluginNamespace) ? 1 : 0;
  }
  if (taken == all) known.insert(&registry);
  return taken;
}

#if NV_TENSORRT_MAJOR == 8

// TensorRT 8.5 knows no plugin libraries: what its trtexec opens with --plugins registers itself,
// and so does what Python opens. Later versions ask by getPluginCreators().
__attribute__((constructor)) void register_with_8_5() noexcept {
  void* const loaded = dlopen("libnvinfer.so.8", RTLD_LAZY | RTLD_NOLOAD);
  if (loaded == nullptr) return;
  auto* const version = reinterpret_cast<std::int32_t (*)()>(dlsym(loaded, "getInferLibVersion"));
  auto* const registry =
      reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(loaded, "getPluginRegistry"));
  auto* const logger = reinterpret_cast<nvinfer1::ILogger* (*)()>(dlsym(loaded, "getLogger"));
  const std::int32_t number = version != nullptr ? version() : 0;
  if (number >= 8500 && number < 8600 && registry != nullptr) {
    detrxRegisterPlugins(registry(), logger != nullptr ? logger() : nullptr);
  }
  dlclose(loaded);
}

#endif

}  // namespace
}  // namespace detrx::trt

using detrx::trt::list_creators;

#if NV_TENSORRT_MAJOR == 8
detrx::trt::Creator* const* getPluginCreators(std::int32_t& count) noexcept {
  return list_creators(count);
}
#else
detrx::trt::Creator* const* getCreators(std::int32_t& count) noexcept {
  return list_creators(count);
}
#endif

std::int32_t detrxRegisterPlugins(void* registry, void* logger) noexcept {
  detrx::trt::complain_to(static_cast<nvinfer1::ILogger*>(logger));
  if (registry == nullptr) return 0;
  return detrx::trt::guarded(0, [registry] {
    return detrx::trt::register_with(*static_cast<nvinfer1::IPluginRegistry*>(registry));
  });
}
