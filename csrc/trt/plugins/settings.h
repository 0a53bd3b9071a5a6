// What a plugin was told once and for all: the attributes of its node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trt/vendor.h"

namespace detrx::trt {

// One attribute, as python/detrx/export/plugin_nodes.py has it.
struct Attribute {
  enum class Kind : std::uint8_t { whole, wholes, real };

  const char* name;
  Kind kind;
  bool optional = false;
};

// The values of a kind of plugin's attributes, read from fields or from what a plan keeps.
class Settings {
 public:
  // Throws ArgumentError where a field is missing, of another type or of another length. Fields
  // that are none of ours are passed over: a parser may know more of them.
  Settings(const char* plugin, const std::vector<Attribute>& attributes,
           const nvinfer1::PluginFieldCollection* fields);
  // The same from the bytes of write(). Throws ArgumentError where they are none.
  Settings(const char* plugin, const std::vector<Attribute>& attributes, const void* bytes,
           std::size_t count);

  const char* plugin() const noexcept { return plugin_; }
  // 0, none and 0.0 where an optional one is absent.
  std::int32_t whole(std::string_view name) const;
  const std::vector<std::int32_t>& wholes(std::string_view name) const;
  float real(std::string_view name) const;
  void set(std::string_view name, std::int32_t value);

  // Those that are there; they point into this.
  std::vector<nvinfer1::PluginField> fields() const;

  std::size_t bytes() const noexcept;
  void write(void* to) const noexcept;

 private:
  struct Value {
    Attribute attribute;
    std::vector<std::int32_t> words;  // a real number as its bits
  };

  void read(Value& value, const nvinfer1::PluginField& field) const;
  const Value& find(std::string_view name) const;

  const char* plugin_;
  std::vector<Value> values_;
};

}  // namespace detrx::trt
