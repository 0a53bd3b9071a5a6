// A TensorRT of our own: the library that the adapter opens under test. It takes a "plan" of a few lines of text and
// copies its inputs to its outputs, scaled, so that names, shapes, types, memory and order can be seen to be right.
//
//   fake 100300                    the version that it was built for
//   in  pixels 0  4 -1 3 4 6  4 1 3 4 6  4 2 3 4 6  4 4 3 4 6      type; shape, least, usual, most: rank and sides
//   out scores 0  2 -1 5           -1 is the number of images
//   scale 2
//   memory 512                     bytes of activations
//   plugin DetrxDecode             a plan that holds one is taken where somebody has registered it
//   fail enqueue                   or context, shape, address, data, format, host, inspector
#include <NvInferRuntime.h>
#include <stubs.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/half.h"

namespace {

using namespace nvinfer1;

std::atomic<int> alive{0};
ILogger* logger = nullptr;

struct Counted {
  Counted() { ++alive; }
  ~Counted() { --alive; }
};

int own_version() {
  const char* const named = std::getenv("DETRX_FAKE_VERSION");
  return named != nullptr ? std::atoi(named) : NV_TENSORRT_VERSION;
}

struct Entry {
  std::string name;
  bool input = false;
  DataType type = DataType::kFLOAT;
  Dims shape{}, least{}, usual{}, most{};
};

// As the name says, and nothing else: what is registered is looked for by plans.
class Registry : public IPluginRegistry {
 public:
#if NV_TENSORRT_MAJOR == 8
  using Creator = IPluginCreator;
  Creator* const* getPluginCreatorList(std::int32_t* const) const noexcept override { std::abort(); }
  Creator* getPluginCreator(const char*, const char*, const char*) noexcept override { std::abort(); }
  bool deregisterCreator(const Creator&) noexcept override { std::abort(); }
  static const char* name_of(Creator& creator) { return creator.getPluginName(); }
#else
  using Creator = IPluginCreatorInterface;
  Creator* const* getAllCreators(std::int32_t* const) const noexcept override { std::abort(); }
  Creator* getCreator(const char*, const char*, const char*) noexcept override { std::abort(); }
  bool deregisterCreator(const Creator&) noexcept override { std::abort(); }
  IPluginResource* acquirePluginResource(const char*, IPluginResource*) noexcept override { std::abort(); }
  std::int32_t releasePluginResource(const char*) noexcept override { std::abort(); }
  static const char* name_of(Creator& creator) {
    return static_cast<IPluginCreatorV3One&>(creator).getPluginName();
  }
#endif
#if NV_TENSORRT_MAJOR == 10
  bool registerCreator(IPluginCreator&, const char* const) noexcept override { std::abort(); }
  IPluginCreator* const* getPluginCreatorList(std::int32_t* const) const noexcept override { std::abort(); }
  IPluginCreator* getPluginCreator(const char*, const char*, const char*) noexcept override { std::abort(); }
  bool deregisterCreator(const IPluginCreator&) noexcept override { std::abort(); }
#endif
#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR > 5
  bool isParentSearchEnabled() const override { std::abort(); }
  void setParentSearchEnabled(const bool) override { std::abort(); }
  void* loadLibrary(const char*) noexcept override { std::abort(); }
  void deregisterLibrary(void*) noexcept override { std::abort(); }
#endif
#if NV_TENSORRT_MAJOR > 8  // of later ones than 10.3, which is why it does not say override
  Creator* const* getAllCreatorsRecursive(std::int32_t* const) noexcept { std::abort(); }
#endif
  void setErrorRecorder(IErrorRecorder* const) noexcept override { std::abort(); }
  IErrorRecorder* getErrorRecorder() const noexcept override { std::abort(); }

  bool registerCreator(Creator& creator, const char* const where) noexcept override {
    const std::string name = std::string(where) + " " + name_of(creator);
    if (has(name)) {
      if (logger != nullptr) logger->log(ILogger::Severity::kERROR, "a creator is registered twice");
      return false;
    }
    names_.push_back(name);
    return true;
  }
  bool has(const std::string& name) const {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
  }

 private:
  std::vector<std::string> names_;
};

Registry& registry() {
  static Registry& only = *new Registry;
  return only;
}

struct Plan {
  std::vector<Entry> entries;
  float scale = 1;
  std::size_t memory = 0;
  std::string fail;

  const Entry& find(const char* name) const {
    const auto same = [name](const Entry& entry) { return entry.name == name; };
    return *std::find_if(entries.begin(), entries.end(), same);
  }
};

std::istream& operator>>(std::istream& in, Dims& dims) {
  dims = {};
  in >> dims.nbDims;
  for (int axis = 0; axis < dims.nbDims; ++axis) in >> dims.d[axis];
  return in;
}

std::int64_t items(const Dims& dims) {
  std::int64_t product = 1;
  for (int axis = 0; axis < dims.nbDims; ++axis) product *= dims.d[axis];
  return product;
}

bool parse(const std::string& text, Plan& plan) {
  std::istringstream in(text);
  std::string word;
  int version = 0, type = 0;
  if (!(in >> word >> version) || word != "fake") {
    logger->log(ILogger::Severity::kERROR, "Magic tag does not match");
    return false;
  }
  if (version != own_version()) {
    logger->log(ILogger::Severity::kERROR, "Version tag does not match");
    return false;
  }
  while (in >> word) {
    Entry entry;
    if (word == "in") {
      in >> entry.name >> type >> entry.shape >> entry.least >> entry.usual >> entry.most;
    } else if (word == "out") {
      in >> entry.name >> type >> entry.shape;
    } else if (word == "scale") {
      in >> plan.scale;
    } else if (word == "memory") {
      in >> plan.memory;
    } else if (word == "fail") {
      in >> plan.fail;
    } else if (word == "plugin") {
      in >> word;
      if (!registry().has("detrx " + word)) {
        logger->log(ILogger::Severity::kERROR, "Cannot find plugin");
        return false;
      }
    }
    entry.input = word == "in";
    entry.type = static_cast<DataType>(type);
    if (!entry.name.empty()) plan.entries.push_back(entry);
  }
  return true;
}

float read(const void* from, DataType type, std::int64_t at) {
  if (type == DataType::kHALF) return detrx::to_float(static_cast<const detrx::Half*>(from)[at]);
  return static_cast<const float*>(from)[at];
}

void write(void* to, DataType type, std::int64_t at, float value) {
  switch (static_cast<int>(type)) {
    case 0:
      static_cast<float*>(to)[at] = value;
      return;
    case 1:
      static_cast<detrx::Half*>(to)[at] = detrx::from_float<detrx::Half>(value);
      return;
    case 3:
      static_cast<std::int32_t*>(to)[at] = static_cast<std::int32_t>(value);
      return;
    case 8:
      static_cast<std::int64_t*>(to)[at] = static_cast<std::int64_t>(value);
      return;
    default:
      std::abort();
  }
}

class Context : public StubExecutionContext, Counted {
 public:
  explicit Context(const Plan& plan) : plan_(plan) {
    for (const Entry& entry : plan.entries) {
      if (entry.input) shapes_[entry.name] = entry.shape;
    }
  }

  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    if (plan_.fail == "shape") return false;
    shapes_[name] = dims;
    return true;
  }

  Dims getTensorShape(const char* name) const noexcept override {
    const Entry& entry = plan_.find(name);
    if (entry.input) return shapes_.at(name);
    Dims dims = entry.shape;
    if (plan_.fail != "data" && dims.nbDims > 0 && dims.d[0] < 0) {
      dims.d[0] = shapes_.begin()->second.d[0];
    }
    return dims;
  }

  bool setTensorAddress(const char* name, void* data) noexcept override {
    if (plan_.fail == "address" || reinterpret_cast<std::uintptr_t>(data) % 256 != 0) return false;
    addresses_[name] = data;
    return true;
  }
  const void* getTensorAddress(const char* name) const noexcept override {
    return addresses_.at(name);
  }

  void setProfiler(IProfiler* profiler) noexcept override { profiler_ = profiler; }

#if NV_TENSORRT_MAJOR == 8
  void setDeviceMemory(void* memory) noexcept override { memory_ = memory; }
#else
  void setDeviceMemoryV2(void* memory, std::int64_t size) noexcept override {
    if (size >= static_cast<std::int64_t>(plan_.memory)) memory_ = memory;
  }
#endif

  bool enqueueV3(cudaStream_t) noexcept override {
    if (plan_.fail == "enqueue" || memory_ == nullptr) {
      logger->log(ILogger::Severity::kERROR, "enqueueV3: Error Code 1: the fake was told to fail");
      return false;
    }
    std::memset(memory_, 0x5a, plan_.memory);  // a sanitizer sees where there is less
    const Entry* source = nullptr;
    for (const Entry& entry : plan_.entries) {
      if (entry.input) source = &entry;
    }
    const Dims& in = shapes_.at(source->name);
    const std::int64_t images = in.d[0], each = items(in) / images;
    for (const Entry& entry : plan_.entries) {
      if (entry.input) continue;
      const std::int64_t answers = items(getTensorShape(entry.name.c_str())) / images;
      void* const to = addresses_.at(entry.name);
      const void* const from = addresses_.at(source->name);
      for (std::int64_t at = 0; at < images * answers; ++at) {
        const std::int64_t place = at / answers * each + at % answers % each;
        write(to, entry.type, at, plan_.scale * read(from, source->type, place));
      }
    }
    if (profiler_ != nullptr) {
      profiler_->reportLayerTime("copy", 0.5f);
      profiler_->reportLayerTime("scale", 0.25f);
    }
    return true;
  }

 private:
  const Plan& plan_;
  // In order of name and with fast comparison: enqueue and setTensorAddress allocate nothing.
  std::map<std::string, Dims, std::less<>> shapes_;
  std::map<std::string, void*, std::less<>> addresses_;
  IProfiler* profiler_ = nullptr;
  void* memory_ = nullptr;
};

class ContextFace : public IExecutionContext {
 public:
  explicit ContextFace(const Plan& plan) : context_(plan) { mImpl = &context_; }

 private:
  Context context_;
};

class Inspector : public StubEngineInspector {
 public:
  const char* getEngineInformation(LayerInformationFormat) const noexcept override {
    return R"({"Layers": [{"Name": "copy", "TacticName": "fake"}]})";
  }
};

class InspectorFace : public IEngineInspector, Counted {
 public:
  InspectorFace() { mImpl = &inspector_; }

 private:
  Inspector inspector_;
};

class Engine : public StubCudaEngine, Counted {
 public:
  explicit Engine(Plan plan) : plan_(std::move(plan)) {}

  std::int32_t getNbIOTensors() const noexcept override {
    return static_cast<std::int32_t>(plan_.entries.size());
  }
  const char* getIOTensorName(std::int32_t index) const noexcept override {
    return plan_.entries[static_cast<std::size_t>(index)].name.c_str();
  }
  Dims getTensorShape(const char* name) const noexcept override { return plan_.find(name).shape; }
  DataType getTensorDataType(const char* name) const noexcept override {
    return plan_.find(name).type;
  }
  TensorLocation getTensorLocation(const char*) const noexcept override {
    return plan_.fail == "host" ? TensorLocation::kHOST : TensorLocation::kDEVICE;
  }
  bool isShapeInferenceIO(const char*) const noexcept override { return false; }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    return plan_.find(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  TensorFormat getTensorFormat(const char*) const noexcept override {
    return plan_.fail == "format" ? TensorFormat::kCHW32 : TensorFormat::kLINEAR;
  }
  const char* getTensorFormatDesc(const char*) const noexcept override { return "kCHW32"; }
  Dims getProfileShape(const char* name, std::int32_t, OptProfileSelector select) const
      noexcept override {
    const Entry& entry = plan_.find(name);
    if (select == OptProfileSelector::kMIN) return entry.least;
    return select == OptProfileSelector::kOPT ? entry.usual : entry.most;
  }
  IEngineInspector* createEngineInspector() const noexcept override {
    return plan_.fail == "inspector" ? nullptr : new InspectorFace;
  }

#if NV_TENSORRT_MAJOR == 8
  std::size_t getDeviceMemorySize() const noexcept override { return plan_.memory; }
  IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept override {
    return plan_.fail == "context" ? nullptr : new ContextFace(plan_);
  }
#else
  std::int64_t getDeviceMemorySizeV2() const noexcept override {
    return static_cast<std::int64_t>(plan_.memory);
  }
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy how) noexcept override {
    if (how != ExecutionContextAllocationStrategy::kUSER_MANAGED) std::abort();
    return plan_.fail == "context" ? nullptr : new ContextFace(plan_);
  }
#endif

 private:
  Plan plan_;
};

class EngineFace : public ICudaEngine {
 public:
  explicit EngineFace(Plan plan) : engine_(std::move(plan)) { mImpl = &engine_; }

 private:
  Engine engine_;
};

class Runtime : public StubRuntime, Counted {
 public:
#if NV_TENSORRT_MAJOR == 8
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size,
                                     IPluginFactory*) noexcept override {
#else
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
#endif
    // As TensorRT does: from another thread, and now and then nothing at all.
    std::thread([] { logger->log(ILogger::Severity::kWARNING, "Using an engine plan file"); }).join();
    logger->log(ILogger::Severity::kWARNING, nullptr);
    logger->log(ILogger::Severity::kINFO, "nobody reads this");
    Plan plan;
    if (!parse(std::string(static_cast<const char*>(blob), size), plan)) return nullptr;
    return new EngineFace(std::move(plan));
  }
  ILogger* getLogger() const noexcept override { return logger; }
};

class RuntimeFace : public IRuntime {
 public:
  RuntimeFace() { mImpl = &runtime_; }

 private:
  Runtime runtime_;
};

}  // namespace

#define EXPORT __attribute__((visibility("default")))

extern "C" {

#if !defined(FAKE_WITHOUT_VERSION)
EXPORT std::int32_t getInferLibVersion() noexcept { return own_version(); }
#endif

#if !defined(FAKE_WITHOUT_RUNTIME)
EXPORT void* createInferRuntime_INTERNAL(void* given, std::int32_t version) noexcept {
  logger = static_cast<ILogger*>(given);
  if (logger == nullptr || version / 100 > NV_TENSORRT_VERSION / 100) return nullptr;
  const char* const told = std::getenv("DETRX_FAKE_RUNTIME");
  if (told != nullptr) {
    logger->log(ILogger::Severity::kINTERNAL_ERROR, "CUDA initialization failure with error: 35");
    return reinterpret_cast<void*>(std::strtoul(told, nullptr, 16));
  }
  return static_cast<IRuntime*>(new RuntimeFace);
}
#endif

EXPORT IPluginRegistry* getPluginRegistry() noexcept { return &registry(); }

// Objects that nobody has deleted yet.
EXPORT int detrx_fake_alive() { return alive; }
}
