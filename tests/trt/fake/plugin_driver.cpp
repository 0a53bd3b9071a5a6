// Asks plugins what TensorRT asks them, for tests in Python: the same functions over the plugins of TensorRT 8 and of
// later ones. Memory is the process's.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

// Expressions over sides that are known.
class Known : public IDimensionExpr, apiv::VDimensionExpr {
 public:
  explicit Known(std::int64_t value) : value_(value) { mImpl = this; }
  bool isConstant() const noexcept override { return true; }
#if NV_TENSORRT_MAJOR == 8
  std::int32_t getConstantValue() const noexcept override { return static_cast<std::int32_t>(value_); }
#else
  std::int64_t getConstantValue() const noexcept override { return value_; }
  bool isSizeTensor() const noexcept override { return false; }
#endif

 private:
  std::int64_t value_;
};

class Builder : public IExprBuilder, apiv::VExprBuilder {
 public:
  Builder() { mImpl = this; }
#if NV_TENSORRT_MAJOR == 8
  const IDimensionExpr* constant(std::int32_t value) noexcept override { return make(value); }
#else
  const IDimensionExpr* constant(std::int64_t value) noexcept override { return make(value); }
  const IDimensionExpr* declareSizeTensor(std::int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) noexcept override {
    return nullptr;
  }
#endif
  const IDimensionExpr* operation(DimensionOperation what, const IDimensionExpr& a,
                                  const IDimensionExpr& b) noexcept override {
    if (what != DimensionOperation::kPROD) return nullptr;
    return make(std::int64_t{a.getConstantValue()} * b.getConstantValue());
  }
  const IDimensionExpr* make(std::int64_t value) { return &made_.emplace_back(value); }

 private:
  std::deque<Known> made_;
};

class Log : public ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kWARNING) said += std::string(message) + "\n";
  }
  std::string said;
} logger;

#if NV_TENSORRT_MAJOR == 8
struct Finder {
  virtual ILogger* findLogger() { return &logger; }
  virtual ~Finder() = default;
} finder;
using Creator = IPluginCreator;
using Plugin = IPluginV2DynamicExt;
constexpr const char* kDoor = "getPluginCreators";
#else
struct Finder : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
} finder;
using Creator = IPluginCreatorInterface;
using Plugin = IPluginV3;
constexpr const char* kDoor = "getCreators";
#endif

std::vector<Creator*> creators;

#if NV_TENSORRT_MAJOR == 8
Creator* maker(Creator* creator) { return creator; }
#else
IPluginCreatorV3One* maker(Creator* creator) { return static_cast<IPluginCreatorV3One*>(creator); }
#endif

auto find(const char* kind) {
  for (Creator* const creator : creators) {
    if (std::strcmp(maker(creator)->getPluginName(), kind) == 0) return maker(creator);
  }
  return maker(nullptr);
}

Plugin* create(const char* kind, const PluginFieldCollection& fields, bool plan) {
#if NV_TENSORRT_MAJOR == 8
  static_cast<void>(plan);
  return static_cast<Plugin*>(find(kind)->createPlugin("a", &fields));
#else
  return find(kind)->createPlugin("a", &fields, plan ? TensorRTPhase::kRUNTIME : TensorRTPhase::kBUILD);
#endif
}

#if NV_TENSORRT_MAJOR != 8
template <typename T>
T& part(Plugin* plugin, PluginCapabilityType type) {
  return *static_cast<T*>(plugin->getCapabilityInterface(type));
}
IPluginV3OneCore& core(Plugin* p) { return part<IPluginV3OneCore>(p, PluginCapabilityType::kCORE); }
IPluginV3OneBuild& build(Plugin* p) { return part<IPluginV3OneBuild>(p, PluginCapabilityType::kBUILD); }
IPluginV3OneRuntime& runs(Plugin* p) { return part<IPluginV3OneRuntime>(p, PluginCapabilityType::kRUNTIME); }
#endif

}  // namespace

// As ctypes hands it over: a type, a layout, a rank and its sides.
struct Port {
  std::int32_t type, format, rank;
  std::int64_t sides[8];
};

namespace {

PluginTensorDesc desc_of(const Port& port) {
  PluginTensorDesc desc{};
  desc.type = static_cast<DataType>(port.type);
  desc.format = static_cast<TensorFormat>(port.format);
  desc.dims.nbDims = port.rank;
  for (int i = 0; i < port.rank; ++i) {
    desc.dims.d[i] = static_cast<std::remove_reference_t<decltype(desc.dims.d[0])>>(port.sides[i]);
  }
  return desc;
}

std::vector<PluginTensorDesc> descs_of(const Port* ports, int count) {
  std::vector<PluginTensorDesc> descs;
  for (int i = 0; i < count; ++i) descs.push_back(desc_of(ports[i]));
  return descs;
}

// The number of images is open, as in an engine for several, and these sides are the largest.
std::vector<DynamicPluginTensorDesc> open_descs(const Port* ports, int count) {
  std::vector<DynamicPluginTensorDesc> descs;
  for (const PluginTensorDesc& desc : descs_of(ports, count)) {
    DynamicPluginTensorDesc& made = descs.emplace_back();
    made.desc = desc;
    made.min = made.max = desc.dims;
    if (desc.dims.nbDims > 0) made.desc.dims.d[0] = -1;
  }
  return descs;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int driver_open(const char* path) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    logger.said = dlerror();
    return -1;
  }
  auto* const ask = reinterpret_cast<Creator* const* (*)(std::int32_t&)>(dlsym(library, kDoor));
  auto* const listen = reinterpret_cast<void (*)(Finder*)>(dlsym(library, "setLoggerFinder"));
  if (ask == nullptr || listen == nullptr) return -1;
  listen(&finder);
  std::int32_t count = 0;
  Creator* const* const all = ask(count);
  creators.assign(all, all + count);
  return count;
}

EXPORT const char* driver_said() {
  static std::string said;
  said = logger.said;
  logger.said.clear();
  return said.c_str();
}

// A line each: name, version, namespace, attributes.
EXPORT const char* driver_creators() {
  static std::string lines;
  lines.clear();
  for (Creator* const creator : creators) {
    auto* const one = maker(creator);
    lines += std::string(one->getPluginName()) + " " + one->getPluginVersion() + " " + one->getPluginNamespace();
    const PluginFieldCollection& fields = *one->getFieldNames();
    for (int i = 0; i < fields.nbFields; ++i) {
      lines += std::string(" ") + fields.fields[i].name + ":" + std::to_string(static_cast<int>(fields.fields[i].type));
    }
    lines += "\n";
  }
  return lines.c_str();
}

EXPORT void* driver_create(const char* kind, int count, const char* const* names, const int* types,
                           const void* const* data, const int* lengths) {
  std::vector<PluginField> fields;
  for (int i = 0; i < count; ++i) {
    fields.emplace_back(names[i], data[i], static_cast<PluginFieldType>(types[i]), lengths[i]);
  }
  PluginFieldCollection collection{};
  collection.nbFields = count;
  collection.fields = fields.data();
  return create(kind, collection, false);
}

EXPORT void* driver_clone(void* plugin) {
#if NV_TENSORRT_MAJOR == 8
  return static_cast<Plugin*>(plugin)->clone();
#else
  return runs(static_cast<Plugin*>(plugin)).attachToContext(nullptr);
#endif
}

EXPORT void driver_destroy(void* plugin) {
#if NV_TENSORRT_MAJOR == 8
  static_cast<Plugin*>(plugin)->destroy();
#else
  delete static_cast<Plugin*>(plugin);
#endif
}

EXPORT const char* driver_name(void* given) {
  static std::string name;
#if NV_TENSORRT_MAJOR == 8
  const Plugin& plugin = *static_cast<Plugin*>(given);
  name = std::string(plugin.getPluginType()) + " " + plugin.getPluginVersion() + " " + plugin.getPluginNamespace();
#else
  const IPluginV3OneCore& plugin = core(static_cast<Plugin*>(given));
  name = std::string(plugin.getPluginName()) + " " + plugin.getPluginVersion() + " " + plugin.getPluginNamespace();
#endif
  return name.c_str();
}

// What a plan keeps of a plugin; of later TensorRTs that is each field's name, type, length and words.
EXPORT int driver_write(void* given, unsigned char* to, int room) {
  auto* const plugin = static_cast<Plugin*>(given);
  std::vector<unsigned char> bytes;
#if NV_TENSORRT_MAJOR == 8
  bytes.resize(plugin->getSerializationSize());
  plugin->serialize(bytes.data());
#else
  const PluginFieldCollection& fields = *runs(plugin).getFieldsToSerialize();
  for (int i = 0; i < fields.nbFields; ++i) {
    const PluginField& field = fields.fields[i];
    const std::string head = std::string(field.name) + " " + std::to_string(static_cast<int>(field.type)) + " ";
    bytes.insert(bytes.end(), head.begin(), head.end());
    const auto* const data = static_cast<const unsigned char*>(field.data);
    bytes.insert(bytes.end(), data, data + 4 * field.length);
  }
#endif
  if (static_cast<int>(bytes.size()) <= room) std::memcpy(to, bytes.data(), bytes.size());
  return static_cast<int>(bytes.size());
}

// Another plugin out of what a plan keeps.
EXPORT void* driver_reopen(const char* kind, void* given) {
  auto* const plugin = static_cast<Plugin*>(given);
#if NV_TENSORRT_MAJOR == 8
  std::vector<unsigned char> bytes(plugin->getSerializationSize());
  plugin->serialize(bytes.data());
  return static_cast<Plugin*>(find(kind)->deserializePlugin("a", bytes.data(), bytes.size()));
#else
  return create(kind, *runs(plugin).getFieldsToSerialize(), true);
#endif
}

// Of TensorRT 8 alone.
EXPORT void* driver_read(const char* kind, const unsigned char* bytes, int count) {
#if NV_TENSORRT_MAJOR == 8
  // A copy of its own, so that a sanitizer sees where more is read.
  const auto copy = std::make_unique<unsigned char[]>(static_cast<std::size_t>(count));
  if (count > 0) std::memcpy(copy.get(), bytes, static_cast<std::size_t>(count));
  return static_cast<Plugin*>(find(kind)->deserializePlugin("a", copy.get(), static_cast<std::size_t>(count)));
#else
  static_cast<void>(kind), static_cast<void>(bytes), static_cast<void>(count);
  return nullptr;
#endif
}

EXPORT bool driver_fits(void* given, int port, const Port* ports, int inputs, int outputs) {
  auto* const plugin = static_cast<Plugin*>(given);
#if NV_TENSORRT_MAJOR == 8
  return plugin->supportsFormatCombination(port, descs_of(ports, inputs + outputs).data(), inputs, outputs);
#else
  return build(plugin).supportsFormatCombination(port, open_descs(ports, inputs + outputs).data(), inputs, outputs);
#endif
}

// Types and shapes of the outputs; their number, or -1.
EXPORT int driver_outputs(void* given, const Port* ports, int inputs, Port* outputs) {
  auto* const plugin = static_cast<Plugin*>(given);
  Builder builder;
  std::vector<DataType> types;
  std::vector<DimsExprs> shapes;
  for (const PluginTensorDesc& desc : descs_of(ports, inputs)) {
    types.push_back(desc.type);
    DimsExprs& shape = shapes.emplace_back();
    shape.nbDims = desc.dims.nbDims;
    for (int i = 0; i < shape.nbDims; ++i) shape.d[i] = builder.make(desc.dims.d[i]);
  }
#if NV_TENSORRT_MAJOR == 8
  const int count = plugin->getNbOutputs();
  std::vector<DimsExprs> found;
  for (int i = 0; i < count; ++i) {
    outputs[i].type = static_cast<int>(plugin->getOutputDataType(i, types.data(), inputs));
    found.push_back(plugin->getOutputDimensions(i, shapes.data(), inputs, builder));
    if (found.back().nbDims < 0) return -1;
  }
#else
  const int count = build(plugin).getNbOutputs();
  std::vector<DimsExprs> found(static_cast<std::size_t>(count));
  std::vector<DataType> made(static_cast<std::size_t>(count));
  if (build(plugin).getOutputDataTypes(made.data(), count, types.data(), inputs) != 0) return -1;
  const int code =
      build(plugin).getOutputShapes(shapes.data(), inputs, nullptr, 0, found.data(), count, builder);
  if (code != 0) return -1;
  for (int i = 0; i < count; ++i) outputs[i].type = static_cast<int>(made[static_cast<std::size_t>(i)]);
#endif
  for (int i = 0; i < count; ++i) {
    const DimsExprs& shape = found[static_cast<std::size_t>(i)];
    outputs[i].rank = shape.nbDims;
    for (int axis = 0; axis < shape.nbDims; ++axis) outputs[i].sides[axis] = shape.d[axis]->getConstantValue();
  }
  return count;
}

// 0 where the plugin agrees, or has no way to say that it does not.
EXPORT int driver_configure(void* given, const Port* ports, int inputs, const Port* outputs, int count) {
  auto* const plugin = static_cast<Plugin*>(given);
  const auto in = open_descs(ports, inputs), out = open_descs(outputs, count);
#if NV_TENSORRT_MAJOR == 8
  plugin->configurePlugin(in.data(), inputs, out.data(), count);
  return 0;
#else
  return build(plugin).configurePlugin(in.data(), inputs, out.data(), count);
#endif
}

EXPORT std::int64_t driver_workspace(void* given, const Port* ports, int inputs) {
  auto* const plugin = static_cast<Plugin*>(given);
#if NV_TENSORRT_MAJOR == 8
  return static_cast<std::int64_t>(plugin->getWorkspaceSize(descs_of(ports, inputs).data(), inputs, nullptr, 0));
#else
  return static_cast<std::int64_t>(
      build(plugin).getWorkspaceSize(open_descs(ports, inputs).data(), inputs, nullptr, 0));
#endif
}

EXPORT int driver_run(void* given, const Port* ports, int inputs, const Port* outputs, int count,
                      const void* const* from, void* const* to, void* workspace) {
  auto* const plugin = static_cast<Plugin*>(given);
  const auto in = descs_of(ports, inputs), out = descs_of(outputs, count);
#if NV_TENSORRT_MAJOR == 8
  if (plugin->initialize() != 0) return -1;
  const int code = plugin->enqueue(in.data(), out.data(), from, to, workspace, nullptr);
  plugin->terminate();
  return code;
#else
  const int code = runs(plugin).onShapeChange(in.data(), inputs, out.data(), count);
  return code != 0 ? code : runs(plugin).enqueue(in.data(), out.data(), from, to, workspace, nullptr);
#endif
}
