#include "trt/plugins/operators.h"

#include "core/error.h"

namespace detrx::trt {
namespace {

using nvinfer1::DataType;

bool fits(char letter, DataType type, DataType first) noexcept {
  if (letter == 'f') return type == DataType::kFLOAT;
  if (letter == 'i') return type == DataType::kINT32;
  const auto dtype = dtype_of(type);
  return type == first &&
         (dtype == Dtype::float32 || dtype == Dtype::float16 || dtype == Dtype::bfloat16);
}

}  // namespace

const char* const kPluginVersion = "1";
const char* const kPluginNamespace = "detrx";

const std::vector<const Kind*>& kinds() {
  static const std::vector<const Kind*> all{&deform_attn_kind(), &decode_kind(), &layer_norm_kind(),
                                            &attention_kind()};
  return all;
}

FieldNames field_names(const Kind& kind) {
  using Type = nvinfer1::PluginFieldType;
  FieldNames names{};
  for (const Attribute& attribute : kind.attributes) {
    const bool real = attribute.kind == Attribute::Kind::real;
    names.fields.emplace_back(attribute.name, nullptr, real ? Type::kFLOAT32 : Type::kINT32, 0);
  }
  names.collection.nbFields = static_cast<std::int32_t>(names.fields.size());
  names.collection.fields = names.fields.data();
  return names;
}

std::vector<PluginTensorDesc> largest(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                      std::int32_t count) {
  std::vector<PluginTensorDesc> ports;
  for (std::int32_t i = 0; i < count; ++i) {
    ports.push_back(inputs[i].desc);
    ports.back().dims = inputs[i].max;
  }
  return ports;
}

bool fits(const Kind& kind, std::int32_t port, std::int32_t inputs, const PluginTensorDesc& found,
          const PluginTensorDesc& first) noexcept {
  const auto most = static_cast<std::int32_t>(kind.inputs.size());
  const bool known = inputs >= kind.least_inputs && inputs <= most && port >= 0 &&
                     port < inputs + static_cast<std::int32_t>(kind.outputs.size());
  if (!known || found.format != nvinfer1::TensorFormat::kLINEAR) return false;
  const char letter = port < inputs ? kind.inputs[static_cast<std::size_t>(port)]
                                    : kind.outputs[static_cast<std::size_t>(port - inputs)];
  return fits(letter, found.type, first.type);
}

DataType output_type(const Kind& kind, std::int32_t output, DataType first) noexcept {
  const char letter = kind.outputs[static_cast<std::size_t>(output)];
  if (letter == 'f') return DataType::kFLOAT;
  return letter == 'i' ? DataType::kINT32 : first;
}

void demand_rank(const Settings& settings, const char* name, std::int32_t rank,
                 std::int32_t found) {
  demand(found == rank, settings, name, " must have ", rank, " sides, got ", found);
}

Dtype dtype_of(const PluginTensorDesc& port) {
  const auto dtype = dtype_of(port.type);
  require(dtype.has_value(), "[plugins] no kernel takes type number ", static_cast<int>(port.type));
  return *dtype;
}

}  // namespace detrx::trt
