#include "trt/plugins/settings.h"

#include <cstring>
#include <limits>

#include "core/error.h"

namespace detrx::trt {
namespace {

constexpr std::int32_t kMark = 0x31787464;  // "dtx1", before the words of a plan
constexpr std::size_t kWord = sizeof(std::int32_t);
// PluginFieldType::kINT64, which only later headers name.
constexpr auto kLong = static_cast<nvinfer1::PluginFieldType>(10);

const char* text(Attribute::Kind kind) noexcept {
  constexpr const char* kTexts[] = {"one int32 or int64", "int32 or int64 numbers", "one float32"};
  return kTexts[static_cast<std::size_t>(kind)];
}

// Whole numbers of 32 bits out of the two forms that parsers have.
std::int32_t word_of(const nvinfer1::PluginField& field, std::int32_t at, const char* plugin) {
  if (field.type != kLong) return static_cast<const std::int32_t*>(field.data)[at];
  const std::int64_t wide = static_cast<const std::int64_t*>(field.data)[at];
  const auto narrow = static_cast<std::int32_t>(wide);
  require(narrow == wide, "[", plugin, "] attribute ", field.name, " must fit 32 bits, got ", wide);
  return narrow;
}

}  // namespace

Settings::Settings(const char* plugin, const std::vector<Attribute>& attributes,
                   const nvinfer1::PluginFieldCollection* fields)
    : plugin_(plugin) {
  for (const Attribute& attribute : attributes) {
    Value& value = values_.emplace_back(Value{attribute, {}});
    bool found = false;
    for (std::int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
      const nvinfer1::PluginField& field = fields->fields[i];
      if (field.name == nullptr || std::string_view(field.name) != attribute.name) continue;
      read(value, field);
      found = true;
    }
    require(found || attribute.optional, "[", plugin, "] the node must have the attribute ",
            attribute.name, "; export the graph again with this version of detrx");
  }
}

void Settings::read(Value& value, const nvinfer1::PluginField& field) const {
  using Type = nvinfer1::PluginFieldType;
  const bool real = value.attribute.kind == Attribute::Kind::real;
  const bool typed =
      real ? field.type == Type::kFLOAT32 : field.type == Type::kINT32 || field.type == kLong;
  const bool sized =
      value.attribute.kind == Attribute::Kind::wholes ? field.length >= 0 : field.length == 1;
  require(typed && sized && (field.data != nullptr || field.length == 0), "[", plugin_,
          "] attribute ", field.name, " must be ", text(value.attribute.kind), ", got ",
          field.length, " of field type ", static_cast<int>(field.type));
  value.words.clear();
  for (std::int32_t i = 0; i < field.length; ++i) value.words.push_back(word_of(field, i, plugin_));
}

Settings::Settings(const char* plugin, const std::vector<Attribute>& attributes, const void* bytes,
                   std::size_t count)
    : plugin_(plugin) {
  const char* at = static_cast<const char*>(bytes);
  const auto take = [&] {
    require(at != nullptr && count >= kWord, "[", plugin, "] the plan ends too early for it");
    std::int32_t word;
    std::memcpy(&word, at, kWord);
    at += kWord;
    count -= kWord;
    return word;
  };
  const std::int32_t mark = take(), known = take();
  require(mark == kMark && known == static_cast<std::int32_t>(attributes.size()), "[", plugin,
          "] the plan holds another version of this plugin; build the engine again");
  for (const Attribute& attribute : attributes) {
    Value& value = values_.emplace_back(Value{attribute, {}});
    const std::int32_t words = take();
    require(words >= 0 && static_cast<std::size_t>(words) <= count / kWord, "[", plugin,
            "] the plan ends within ", attribute.name);
    for (std::int32_t i = 0; i < words; ++i) value.words.push_back(take());
    require(attribute.kind == Attribute::Kind::wholes || words == 1 ||
                (words == 0 && attribute.optional),
            "[", plugin, "] the plan holds ", words, " numbers for ", attribute.name);
  }
  require(count == 0, "[", plugin, "] the plan holds ", count, " bytes too many for it");
}

const Settings::Value& Settings::find(std::string_view name) const {
  for (const Value& value : values_) {
    if (name == value.attribute.name) return value;
  }
  throw ArgumentError("[" + std::string(plugin_) + "] has no attribute " + std::string(name));
}

std::int32_t Settings::whole(std::string_view name) const {
  const Value& value = find(name);
  return value.words.empty() ? 0 : value.words[0];
}

const std::vector<std::int32_t>& Settings::wholes(std::string_view name) const {
  return find(name).words;
}

float Settings::real(std::string_view name) const {
  const std::int32_t bits = whole(name);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void Settings::set(std::string_view name, std::int32_t value) {
  const_cast<Value&>(find(name)).words.assign(1, value);
}

std::vector<nvinfer1::PluginField> Settings::fields() const {
  using Type = nvinfer1::PluginFieldType;
  std::vector<nvinfer1::PluginField> fields;
  for (const Value& value : values_) {
    if (value.words.empty() && value.attribute.optional) continue;
    const bool real = value.attribute.kind == Attribute::Kind::real;
    fields.emplace_back(value.attribute.name, value.words.data(),
                        real ? Type::kFLOAT32 : Type::kINT32,
                        static_cast<std::int32_t>(value.words.size()));
  }
  return fields;
}

std::size_t Settings::bytes() const noexcept {
  std::size_t words = 2;
  for (const Value& value : values_) words += 1 + value.words.size();
  return words * kWord;
}

void Settings::write(void* to) const noexcept {
  char* at = static_cast<char*>(to);
  const auto put = [&at](const std::int32_t* words, std::size_t count) {
    if (count > 0) std::memcpy(at, words, count * kWord);
    at += count * kWord;
  };
  const std::int32_t head[] = {kMark, static_cast<std::int32_t>(values_.size())};
  put(head, 2);
  for (const Value& value : values_) {
    const auto count = static_cast<std::int32_t>(value.words.size());
    put(&count, 1);
    put(value.words.data(), value.words.size());
  }
}

}  // namespace detrx::trt
