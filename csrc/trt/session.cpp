#include "trt/session.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "trt/error.h"
#include "trt/log.h"
#include "trt/vendor.h"

namespace detrx::trt {
namespace {

// Time by layer, in the order in which the layers run.
class Times final : public nvinfer1::IProfiler {
 public:
  void reportLayerTime(const char* name, float milliseconds) noexcept override {
    try {
      const auto same = [name](const auto& row) { return row.first == name; };
      const auto found = std::find_if(rows.begin(), rows.end(), same);
      if (found == rows.end()) {
        rows.emplace_back(name, milliseconds);
      } else {
        found->second += milliseconds;
      }
    } catch (const std::bad_alloc&) {
      complete = false;
    }
  }

  std::vector<std::pair<std::string, float>> rows;
  bool complete = true;
};

// What an input must be.
struct Wanted {
  const Tensor& tensor;
};

std::ostream& operator<<(std::ostream& out, const Wanted& wanted) {
  const Tensor& tensor = wanted.tensor;
  out << text(tensor.dtype) << " " << tensor.least;
  if (tensor.least != tensor.most) out << " to " << tensor.most;
  return out;
}

}  // namespace

void Session::Destroy::operator()(nvinfer1::IExecutionContext* context) const noexcept {
  delete context;
}

Session::Session(std::shared_ptr<Engine> engine, const std::vector<std::string>& inputs,
                 const std::vector<std::string>& outputs)
    : engine_(std::move(engine)),
      wanted_(outputs.size()),
      stream_(nullptr, Free{&engine_->device()}) {
  DeviceInterface& device = engine_->device();
  const On on(device);
  take_log();
  context_.reset(make_context(engine_->plan()));
  expect(context_ != nullptr, "[session] TensorRT makes no context:\n", Said{});
  const std::size_t bytes = activation_bytes(engine_->plan());
  activations_ = Memory(device, std::max<std::size_t>(bytes, 1), Place::device);
  give_memory(*context_, activations_.get(), bytes);
  stream_.reset(device.make_stream());

  const std::vector<Tensor>& all = engine_->tensors();
  inputs_.reserve(all.size());
  outputs_.reserve(all.size());
  for (const std::string& name : inputs) make_input(name);
  for (const Tensor& tensor : all) {
    const bool named = std::find(inputs.begin(), inputs.end(), tensor.name) != inputs.end();
    expect(!tensor.input || named, "[session] the engine also takes ", tensor.name,
           ", which is not given");
  }
  for (const std::string& name : outputs) make_output(name);
  for (const Tensor& tensor : all) {
    const bool named = std::find(outputs.begin(), outputs.end(), tensor.name) != outputs.end();
    if (!tensor.input && !named) make_output(tensor.name);
  }
}

Session::~Session() {
  const OnIfPossible on(engine_->device());
  context_.reset();
}

void Session::make_memory(Slot& slot) {
  DeviceInterface& device = engine_->device();
  const auto items = static_cast<std::size_t>(slot.shape.items());
  slot.capacity = items * bytes_of(slot.tensor->dtype);
  const std::size_t bytes = std::max<std::size_t>(slot.capacity, 1);
  slot.device = Memory(device, bytes, Place::device);
  slot.staging = Memory(device, bytes, Place::host);
  const char* const name = slot.tensor->name.c_str();
  expect(context_->setTensorAddress(name, slot.device.get()), "[session] ", name,
         " cannot be given memory:\n", Said{});
}

void Session::make_input(const std::string& name) {
  Slot slot;
  slot.tensor = engine_->find(name);
  expect(slot.tensor != nullptr && slot.tensor->input, "[session] the engine must take ", name);
  expect(slot.tensor->most.items() > 0, "[session] ", name, " has an open shape ",
         slot.tensor->most, " even for the largest input");
  slot.shape = slot.tensor->most;
  make_memory(slot);
  inputs_.push_back(std::move(slot));
  expect(context_->setInputShape(name.c_str(), dims_of(inputs_.back().shape)), "[session] ", name,
         " cannot have the shape ", inputs_.back().shape, ":\n", Said{});
}

void Session::make_output(const std::string& name) {
  Slot slot;
  slot.tensor = engine_->find(name);
  expect(slot.tensor != nullptr && !slot.tensor->input, "[session] the engine must give ", name);
  slot.shape = shape_of(context_->getTensorShape(name.c_str()));
  expect(slot.shape.items() >= 0, "[session] ", name, " has a shape ", slot.shape,
         " that the data decide; detrx's graphs give a fixed number of detections");
  make_memory(slot);
  outputs_.push_back(std::move(slot));
}

void Session::reshape(Slot& input, const Shape& shape) {
  const Tensor& tensor = *input.tensor;
  require(shape.within(tensor.least, tensor.most), "[session] ", tensor.name, " must be ",
          Wanted{tensor}, ", got the shape ", shape);
  expect(context_->setInputShape(tensor.name.c_str(), dims_of(shape)), "[session] ", tensor.name,
         " cannot have the shape ", shape, ":\n", Said{});
  input.shape = shape;
}

void Session::read_output_shapes() {
  for (Slot& output : outputs_) {
    const Tensor& tensor = *output.tensor;
    output.shape = shape_of(context_->getTensorShape(tensor.name.c_str()));
    const std::int64_t items = output.shape.items();
    const std::size_t bytes = static_cast<std::size_t>(items) * bytes_of(tensor.dtype);
    expect(items >= 0 && bytes <= output.capacity, "[session] ", tensor.name, " has the shape ",
           output.shape, " and had a smaller one for the largest input");
  }
}

// Takes on the shapes of the inputs and looks at every array before any is touched.
void Session::accept(const Array* inputs, const Array* outputs) {
  bool changed = false;
  for (std::size_t index = 0; index < inputs_.size(); ++index) {
    const Tensor& tensor = *inputs_[index].tensor;
    require(inputs[index].dtype == tensor.dtype, "[session] ", tensor.name, " must be ",
            Wanted{tensor}, ", got ", text(inputs[index].dtype));
    if (inputs[index].shape == inputs_[index].shape) continue;
    reshape(inputs_[index], inputs[index].shape);
    changed = true;
  }
  if (changed) read_output_shapes();
  for (std::size_t index = 0; index < wanted_; ++index) {
    const Slot& output = outputs_[index];
    require(outputs[index].writable, "[session] ", output.tensor->name,
            " must be an array that can be written");
    require(outputs[index].dtype == output.tensor->dtype && outputs[index].shape == output.shape,
            "[session] ", output.tensor->name, " must be ", text(output.tensor->dtype), " ",
            output.shape, ", got ", text(outputs[index].dtype), " ", outputs[index].shape);
  }
}

void Session::require_own_memory() const {
  for (const auto* const slots : {&inputs_, &outputs_}) {
    for (const Slot& slot : *slots) {
      require(!slot.bound, "[session] ", slot.tensor->name,
              " is bound to memory of the caller's; use enqueue, or bind it to 0");
    }
  }
}

void Session::launch(Stream stream) {
  expect(context_->enqueueV3(static_cast<cudaStream_t>(stream)),
         "[session] TensorRT does not run the engine:\n", Said{});
}

void Session::run(const Array* inputs, std::size_t given, const Array* outputs,
                  std::size_t wanted) {
  require(given == inputs_.size() && wanted == wanted_, "[session] must be given ", inputs_.size(),
          " inputs and ", wanted_, " outputs, got ", given, " and ", wanted);
  const std::lock_guard<std::mutex> lock(mutex_);
  DeviceInterface& device = engine_->device();
  const On on(device);
  require_own_memory();
  accept(inputs, outputs);
  Stream stream = stream_.get();
  const auto bytes = [](const Slot& slot) {
    return static_cast<std::size_t>(slot.shape.items()) * bytes_of(slot.tensor->dtype);
  };
  for (std::size_t index = 0; index < given; ++index) {
    Slot& slot = inputs_[index];
    std::memcpy(slot.staging.get(), inputs[index].data, bytes(slot));
    device.upload(slot.device.get(), slot.staging.get(), bytes(slot), stream);
  }
  launch(stream);
  for (std::size_t index = 0; index < wanted; ++index) {
    Slot& slot = outputs_[index];
    device.download(slot.staging.get(), slot.device.get(), bytes(slot), stream);
  }
  device.wait(stream);
  for (std::size_t index = 0; index < wanted; ++index) {
    Slot& slot = outputs_[index];
    std::memcpy(outputs[index].data, slot.staging.get(), bytes(slot));
  }
}

Session::Slot& Session::slot(const std::string& name) {
  for (auto* const slots : {&inputs_, &outputs_}) {
    for (Slot& slot : *slots) {
      if (slot.tensor->name == name) return slot;
    }
  }
  require(false, "[session] the engine has no tensor ", name);
  return inputs_.front();
}

void Session::set_shape(const std::string& name, const Shape& shape) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const On on(engine_->device());
  Slot& input = slot(name);
  require(input.tensor->input, "[session] ", name, " is an output, whose shape follows the inputs");
  reshape(input, shape);
  read_output_shapes();
}

Shape Session::shape(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return slot(name).shape;
}

void* Session::address(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return const_cast<void*>(context_->getTensorAddress(slot(name).tensor->name.c_str()));
}

void Session::bind(const std::string& name, void* address) {
  const std::lock_guard<std::mutex> lock(mutex_);
  lend(slot(name), address);
}

void Session::lend(Slot& slot, void* address) {
  const std::string& name = slot.tensor->name;
  void* const place = address != nullptr ? address : slot.device.get();
  expect(context_->setTensorAddress(name.c_str(), place), "[session] ", name,
         " cannot be given memory:\n", Said{});
  slot.bound = address != nullptr;
}

void Session::enqueue(Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const On on(engine_->device());
  launch(stream);
}

void Session::enqueue_one(void* input, const std::vector<void*>& outputs, Stream stream) {
  require(inputs_.size() == 1 && outputs.size() == wanted_, "[session] must be given 1 input and ",
          wanted_, " outputs, got ", outputs.size());
  const std::lock_guard<std::mutex> lock(mutex_);
  const On on(engine_->device());
  Slot& taken = inputs_.front();
  Shape one = taken.shape;
  one.side[0] = 1;
  if (one != taken.shape) {
    reshape(taken, one);
    read_output_shapes();
  }
  try {
    lend(taken, input);
    for (std::size_t index = 0; index < wanted_; ++index) lend(outputs_[index], outputs[index]);
    launch(stream);
  } catch (...) {
    take_back();
    throw;
  }
  take_back();
}

// All tensors are in the session's own memory again.
void Session::take_back() {
  for (auto* const slots : {&inputs_, &outputs_}) {
    for (Slot& slot : *slots) lend(slot, nullptr);
  }
}

std::vector<std::pair<std::string, float>> Session::profile(int runs) {
  require(runs > 0, "[session] runs must be 1 or more, got ", runs);
  const std::lock_guard<std::mutex> lock(mutex_);
  DeviceInterface& device = engine_->device();
  const On on(device);
  Times times;
  struct Detach {
    nvinfer1::IExecutionContext& context;
    ~Detach() { context.setProfiler(nullptr); }
  } const detach{*context_};
  context_->setProfiler(&times);
  for (int run = 0; run < runs; ++run) {
    launch(stream_.get());
    device.wait(stream_.get());
  }
  expect(times.complete, "[session] there is no memory left for the times of the layers");
  for (auto& row : times.rows) row.second /= static_cast<float>(runs);
  return std::move(times.rows);
}

}  // namespace detrx::trt
