#include "trt/engine.h"

#include "trt/error.h"
#include "trt/log.h"
#include "trt/vendor.h"

namespace detrx::trt {
namespace {

struct DestroyInspector {
  void operator()(nvinfer1::IEngineInspector* inspector) const noexcept { delete inspector; }
};

}  // namespace

void Engine::Destroy::operator()(nvinfer1::ICudaEngine* plan) const noexcept { delete plan; }

Engine::Engine(std::shared_ptr<Library> library, std::shared_ptr<DeviceInterface> device,
               const void* plan, std::size_t bytes)
    : library_(std::move(library)), device_(std::move(device)) {
  const On on(*device_);
  nvinfer1::IRuntime& runtime = library_->runtime();
  take_log();
  plan_.reset(runtime.deserializeCudaEngine(plan, bytes));
  expect(plan_ != nullptr, "[engine] ", library_->version().name(), " does not take these ", bytes,
         " bytes:\n", Said{});
  const int count = plan_->getNbIOTensors();
  for (int index = 0; index < count; ++index)
    tensors_.push_back(read(plan_->getIOTensorName(index)));
}

Engine::~Engine() {
  const OnIfPossible on(*device_);
  plan_.reset();
}

Tensor Engine::read(const char* name) const {
  const nvinfer1::ICudaEngine& plan = *plan_;
  const auto dtype = dtype_of(plan.getTensorDataType(name));
  expect(dtype.has_value(), "[engine] tensor ", name, " has a type that no array can hold (number ",
         static_cast<int>(plan.getTensorDataType(name)), ")");
  expect(plan.getTensorFormat(name) == nvinfer1::TensorFormat::kLINEAR, "[engine] tensor ", name,
         " must lie in memory as a plain array, it is ", plan.getTensorFormatDesc(name));
  expect(!plan.isShapeInferenceIO(name) &&
             plan.getTensorLocation(name) == nvinfer1::TensorLocation::kDEVICE,
         "[engine] tensor ", name, " holds a shape, and detrx gives pictures only");
  Tensor tensor;
  tensor.name = name;
  tensor.input = plan.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
  tensor.dtype = *dtype;
  tensor.shape = shape_of(plan.getTensorShape(name));
  tensor.least = tensor.usual = tensor.most = tensor.shape;
  if (tensor.input) {
    using Select = nvinfer1::OptProfileSelector;
    tensor.least = shape_of(plan.getProfileShape(name, 0, Select::kMIN));
    tensor.usual = shape_of(plan.getProfileShape(name, 0, Select::kOPT));
    tensor.most = shape_of(plan.getProfileShape(name, 0, Select::kMAX));
  }
  return tensor;
}

const Tensor* Engine::find(const std::string& name) const noexcept {
  for (const Tensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

std::string Engine::layers_json() const {
  const On on(*device_);
  const std::unique_ptr<nvinfer1::IEngineInspector, DestroyInspector> inspector(
      plan_->createEngineInspector());
  const char* const found =
      inspector ? inspector->getEngineInformation(nvinfer1::LayerInformationFormat::kJSON)
                : nullptr;
  expect(found != nullptr, "[engine] TensorRT describes no layers:\n", Said{});
  return found;
}

}  // namespace detrx::trt
