// Our operators as plugins of TensorRT 10 and later.
#include "trt/vendor.h"

#if NV_TENSORRT_MAJOR >= 10

#include "trt/plugins/complaints.h"
#include "trt/plugins/creators.h"

namespace detrx::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginFieldCollection;

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  Plugin(const Kind& kind, Settings settings) : kind_(kind), run_(kind.make(std::move(settings))) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    using Type = nvinfer1::PluginCapabilityType;
    if (type == Type::kCORE) return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    if (type == Type::kBUILD) return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    if (type == Type::kRUNTIME) return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    return guarded(static_cast<nvinfer1::IPluginV3*>(nullptr), [this]() -> nvinfer1::IPluginV3* {
      return new Plugin(kind_, run_->settings());
    });
  }
  nvinfer1::IPluginV3* attachToContext(
      nvinfer1::IPluginResourceContext* /*context*/) noexcept override {
    return clone();
  }

  const char* getPluginName() const noexcept override { return kind_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }
  std::int32_t getNbOutputs() const noexcept override {
    return static_cast<std::int32_t>(kind_.outputs.size());
  }

  std::int32_t getOutputDataTypes(DataType* outputs, std::int32_t count, const DataType* inputs,
                                  std::int32_t /*count*/) const noexcept override {
    for (std::int32_t i = 0; i < count; ++i) outputs[i] = output_type(kind_, i, inputs[0]);
    return 0;
  }

  std::int32_t getOutputShapes(const DimsExprs* inputs, std::int32_t /*count*/,
                               const DimsExprs* /*shapes*/, std::int32_t /*count*/,
                               DimsExprs* outputs, std::int32_t /*count*/,
                               nvinfer1::IExprBuilder& builder) noexcept override {
    return guarded(1, [&] {
      run_->shape(inputs, builder, outputs);
      return 0;
    });
  }

  bool supportsFormatCombination(std::int32_t port, const DynamicPluginTensorDesc* ports,
                                 std::int32_t inputs, std::int32_t /*outputs*/) noexcept override {
    return fits(kind_, port, inputs, ports[port].desc, ports[0].desc);
  }

  std::int32_t configurePlugin(const DynamicPluginTensorDesc* inputs, std::int32_t count,
                               const DynamicPluginTensorDesc* /*outputs*/,
                               std::int32_t /*count*/) noexcept override {
    return guarded(1, [&] {
      run_->connect(count);
      run_->check(largest(inputs, count).data());
      return 0;
    });
  }

  std::int32_t onShapeChange(const PluginTensorDesc* inputs, std::int32_t count,
                             const PluginTensorDesc* /*outputs*/,
                             std::int32_t /*count*/) noexcept override {
    return guarded(1, [&] {
      run_->connect(count);
      run_->check(inputs);
      return 0;
    });
  }

  std::size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, std::int32_t count,
                               const DynamicPluginTensorDesc* /*outputs*/,
                               std::int32_t /*count*/) const noexcept override {
    return guarded(std::size_t{0}, [&] { return run_->workspace(largest(inputs, count).data()); });
  }

  std::int32_t enqueue(const PluginTensorDesc* ports, const PluginTensorDesc* /*outputs*/,
                       const void* const* inputs, void* const* outputs, void* workspace,
                       cudaStream_t stream) noexcept override {
    return guarded(1, [&] {
      run_->run({ports, inputs, outputs, workspace, stream});
      return 0;
    });
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return guarded(static_cast<const PluginFieldCollection*>(nullptr), [this] {
      fields_ = run_->settings().fields();
      kept_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
      return &kept_;
    });
  }

 private:
  const Kind& kind_;
  std::unique_ptr<Operator> run_;
  std::vector<nvinfer1::PluginField> fields_;
  PluginFieldCollection kept_;
};

class Maker final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Maker(const Kind& kind) : kind_(kind), names_(field_names(kind)) {}

  const char* getPluginName() const noexcept override { return kind_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }
  const PluginFieldCollection* getFieldNames() noexcept override { return &names_.collection; }

  // For a plan as for a graph: what a plugin keeps in a plan are its attributes.
  nvinfer1::IPluginV3* createPlugin(const char* /*name*/, const PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase /*phase*/) noexcept override {
    return guarded(static_cast<nvinfer1::IPluginV3*>(nullptr), [&]() -> nvinfer1::IPluginV3* {
      return new Plugin(kind_, Settings(kind_.name, kind_.attributes, fields));
    });
  }

 private:
  const Kind& kind_;
  FieldNames names_;
};

}  // namespace

std::unique_ptr<Creator> make_creator(const Kind& kind) { return std::make_unique<Maker>(kind); }

}  // namespace detrx::trt

#endif
