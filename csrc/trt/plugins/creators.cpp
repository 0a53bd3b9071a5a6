#include "trt/plugins/creators.h"

#include <dlfcn.h>

#include <mutex>

namespace detrx::trt {

const std::vector<Creator*>& creators() {
  static const std::vector<Creator*> list{};
  return list;
}

void register_plugins(void* library) {
  auto* const ask =
      reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(library, "getPluginRegistry"));
  if (ask == nullptr) return;
  static std::once_flag once;
  std::call_once(once, [ask] {
    for (Creator* const creator : creators()) ask()->registerCreator(*creator, "detrx");
  });
}

}  // namespace detrx::trt
