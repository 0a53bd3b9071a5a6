// What our plugins have in common, whatever the TensorRT that asks: one operator each, a thin face
// over kernels of csrc/cuda. Read by the .cpp files of this folder only.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "cuda/stream.h"
#include "trt/plugins/settings.h"

namespace detrx::trt {

using nvinfer1::DimsExprs;
using nvinfer1::IExprBuilder;
using nvinfer1::PluginTensorDesc;

// The tensors of one call. Memory is the device's.
struct Call {
  const PluginTensorDesc* ports;  // of the inputs
  const void* const* inputs;
  void* const* outputs;
  void* workspace;
  cuda::Stream stream;
};

class Operator {
 public:
  explicit Operator(Settings settings) : settings_(std::move(settings)) {}
  virtual ~Operator() = default;

  const Settings& settings() const noexcept { return settings_; }

  // Writes the shape of each output. Throws ArgumentError where the inputs have the wrong rank.
  virtual void shape(const DimsExprs* inputs, IExprBuilder& builder, DimsExprs* outputs) const = 0;
  // Throws ArgumentError where the inputs cannot be taken. All sides are known, or the largest
  // ones.
  virtual void check(const PluginTensorDesc* inputs) const = 0;
  virtual std::size_t workspace(const PluginTensorDesc* /*inputs*/) const { return 0; }
  // How many inputs there are, where some are optional; kept with the settings.
  virtual void connect(std::int32_t /*inputs*/) {}
  // Enqueues the work; allocates nothing and does not wait.
  virtual void run(const Call& call) const = 0;

 protected:
  Settings settings_;
};

// A kind of plugin: its name and its attributes are those of the node.
struct Kind {
  const char* name;
  std::vector<Attribute> attributes;
  // A letter a port: T is float32, float16 or bfloat16, the same for all; f float32, i int32.
  std::string_view inputs, outputs;
  std::int32_t least_inputs;
  std::unique_ptr<Operator> (*make)(Settings settings);
};

// The names of a kind's attributes, as TensorRT's parser asks for them. `collection` points into
// `fields`, which moving does not move.
struct FieldNames {
  std::vector<nvinfer1::PluginField> fields;
  nvinfer1::PluginFieldCollection collection;
};
FieldNames field_names(const Kind& kind);

// The inputs at the largest sides that an engine is built for.
std::vector<PluginTensorDesc> largest(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                      std::int32_t count);

constexpr std::size_t kMostOutputs = 4;

extern const char* const kPluginVersion;
extern const char* const kPluginNamespace;

const Kind& deform_attn_kind();
const Kind& decode_kind();
const Kind& layer_norm_kind();
const Kind& attention_kind();
const std::vector<const Kind*>& kinds();

// Whether a port may have this type and layout; first is that of the first input. Inputs come
// before outputs.
bool fits(const Kind& kind, std::int32_t port, std::int32_t inputs, const PluginTensorDesc& found,
          const PluginTensorDesc& first) noexcept;
nvinfer1::DataType output_type(const Kind& kind, std::int32_t output,
                               nvinfer1::DataType first) noexcept;

// For check(): throws ArgumentError unless ok, naming the plugin.
template <typename... Parts>
void demand(bool ok, const Settings& settings, const Parts&... parts) {
  require(ok, "[", settings.plugin(), "] ", parts...);
}
// Refuses another rank.
void demand_rank(const Settings& settings, const char* name, std::int32_t rank, std::int32_t found);
// The type of the first input as the kernels name it.
Dtype dtype_of(const PluginTensorDesc& port);

}  // namespace detrx::trt
