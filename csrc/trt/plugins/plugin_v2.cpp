// Our operators as plugins of TensorRT 8.
#include "trt/vendor.h"

#if NV_TENSORRT_MAJOR == 8

// The base of what creators answer with, which TensorRT calls deprecated and asks for.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#include <string>

#include "trt/plugins/complaints.h"
#include "trt/plugins/creators.h"

namespace detrx::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;

class Plugin final : public nvinfer1::IPluginV2DynamicExt {
 public:
  Plugin(const Kind& kind, Settings settings) : kind_(kind), run_(kind.make(std::move(settings))) {}

  const char* getPluginType() const noexcept override { return kind_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  void setPluginNamespace(const char* name) noexcept override {
    guarded(0, [&] {
      namespace_ = name != nullptr ? name : "";
      return 0;
    });
  }
  const char* getPluginNamespace() const noexcept override { return namespace_.c_str(); }
  std::int32_t getNbOutputs() const noexcept override {
    return static_cast<std::int32_t>(kind_.outputs.size());
  }
  std::int32_t initialize() noexcept override { return 0; }
  void terminate() noexcept override {}
  void destroy() noexcept override { delete this; }

  IPluginV2DynamicExt* clone() const noexcept override {
    return guarded(static_cast<Plugin*>(nullptr), [this] {
      auto copy = std::make_unique<Plugin>(kind_, run_->settings());
      copy->namespace_ = namespace_;
      return copy.release();
    });
  }

  std::size_t getSerializationSize() const noexcept override { return run_->settings().bytes(); }
  void serialize(void* to) const noexcept override { run_->settings().write(to); }

  DataType getOutputDataType(std::int32_t index, const DataType* inputs,
                             std::int32_t /*count*/) const noexcept override {
    return output_type(kind_, index, inputs[0]);
  }

  DimsExprs getOutputDimensions(std::int32_t index, const DimsExprs* inputs, std::int32_t /*count*/,
                                nvinfer1::IExprBuilder& builder) noexcept override {
    DimsExprs none{};
    none.nbDims = -1;
    return guarded(none, [&] {
      DimsExprs outputs[kMostOutputs]{};
      run_->shape(inputs, builder, outputs);
      return outputs[index];
    });
  }

  bool supportsFormatCombination(std::int32_t port, const PluginTensorDesc* ports,
                                 std::int32_t inputs, std::int32_t /*outputs*/) noexcept override {
    return fits(kind_, port, inputs, ports[port], ports[0]);
  }

  // What does not fit is logged here and refused when it is run: TensorRT 8 asks for no answer.
  void configurePlugin(const DynamicPluginTensorDesc* inputs, std::int32_t count,
                       const DynamicPluginTensorDesc* /*outputs*/,
                       std::int32_t /*count*/) noexcept override {
    guarded(0, [&] {
      run_->connect(count);
      run_->check(largest(inputs, count).data());
      return 0;
    });
  }

  std::size_t getWorkspaceSize(const PluginTensorDesc* inputs, std::int32_t /*count*/,
                               const PluginTensorDesc* /*outputs*/,
                               std::int32_t /*count*/) const noexcept override {
    return guarded(std::size_t{0}, [&] { return run_->workspace(inputs); });
  }

  std::int32_t enqueue(const PluginTensorDesc* ports, const PluginTensorDesc* /*outputs*/,
                       const void* const* inputs, void* const* outputs, void* workspace,
                       cudaStream_t stream) noexcept override {
    return guarded(1, [&] {
      run_->run({ports, inputs, outputs, workspace, stream});
      return 0;
    });
  }

 private:
  const Kind& kind_;
  std::unique_ptr<Operator> run_;
  std::string namespace_ = kPluginNamespace;
};

class Maker final : public nvinfer1::IPluginCreator {
 public:
  explicit Maker(const Kind& kind) : kind_(kind), names_(field_names(kind)) {}

  const char* getPluginName() const noexcept override { return kind_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override {
    return &names_.collection;
  }
  void setPluginNamespace(const char* name) noexcept override {
    guarded(0, [&] {
      namespace_ = name != nullptr ? name : "";
      return 0;
    });
  }
  const char* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

  nvinfer1::IPluginV2* createPlugin(
      const char* /*name*/, const nvinfer1::PluginFieldCollection* fields) noexcept override {
    return make([&] { return Settings(kind_.name, kind_.attributes, fields); });
  }
  nvinfer1::IPluginV2* deserializePlugin(const char* /*name*/, const void* bytes,
                                         std::size_t count) noexcept override {
    return make([&] { return Settings(kind_.name, kind_.attributes, bytes, count); });
  }

 private:
  template <typename Read>
  nvinfer1::IPluginV2* make(Read read) noexcept {
    return guarded(static_cast<nvinfer1::IPluginV2*>(nullptr), [&] {
      auto plugin = std::make_unique<Plugin>(kind_, read());
      plugin->setPluginNamespace(namespace_.c_str());
      return plugin.release();
    });
  }

  const Kind& kind_;
  FieldNames names_;
  std::string namespace_ = kPluginNamespace;
};

}  // namespace

std::unique_ptr<Creator> make_creator(const Kind& kind) { return std::make_unique<Maker>(kind); }

}  // namespace detrx::trt

#endif
