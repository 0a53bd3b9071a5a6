// detrx._trt8, _trt10 or _trt11: the same source, compiled once for each major of TensorRT.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "bindings/array_caster.h"
#include "core/error.h"
#include "trt/error.h"
#include "trt/log.h"
#include "trt/session.h"

namespace py = pybind11;

namespace detrx {
namespace {

using trt::DeviceInterface;
using trt::Engine;
using trt::Library;
using trt::Session;
using trt::Tensor;
using trt::Version;

py::tuple numbers(const Version& version) {
  return py::make_tuple(version.major, version.minor, version.patch);
}

std::shared_ptr<Engine> open_engine(std::shared_ptr<Library> library,
                                    std::shared_ptr<DeviceInterface> device,
                                    const py::buffer& plan) {
  const py::buffer_info bytes = plan.request();
  const py::gil_scoped_release release;
  return std::make_shared<Engine>(std::move(library), std::move(device), bytes.ptr,
                                  static_cast<std::size_t>(bytes.size * bytes.itemsize));
}

void run(Session& session, const Arrays& inputs, const Arrays& outputs) {
  session.run(inputs.data(), inputs.size(), outputs.data(), outputs.size());
}

// The classes of detrx.errors, in the words of the C++ ones.
void translate(std::exception_ptr found) {
  const auto raise = [](const char* name, const char* what) {
    const py::object type = py::module_::import("detrx.errors").attr(name);
    PyErr_SetString(type.ptr(), what);
  };
  try {
    if (found) std::rethrow_exception(found);
  } catch (const trt::EngineError& error) {
    raise("EngineError", error.what());
  } catch (const trt::MissingLibrary& error) {
    PyErr_SetString(PyExc_FileNotFoundError, error.what());
  } catch (const DeviceError& error) {
    raise("DeviceError", error.what());
  }
}

void bind_library(py::module_& m) {
  py::class_<DeviceInterface, std::shared_ptr<DeviceInterface>>(m, "Device", py::module_local())
      .def_property_readonly("name", &DeviceInterface::name)
      .def_property_readonly("capability", &DeviceInterface::capability);
  m.def("cuda_device", &trt::make_cuda_device, py::arg("index"));
  m.def("host_device", &trt::make_host_device);
  py::class_<Library, std::shared_ptr<Library>>(m, "Library", py::module_local())
      .def(py::init<const std::vector<std::string>&>(), py::arg("names"))
      .def_property_readonly("version",
                             [](const Library& library) { return numbers(library.version()); })
      .def_property_readonly("path", &Library::path)
      .def("load_plugins", &Library::load_plugins, py::arg("path"),
           py::call_guard<py::gil_scoped_release>());
}

void bind_engine(py::module_& m) {
  py::class_<Tensor>(m, "Tensor", py::module_local())
      .def_readonly("name", &Tensor::name)
      .def_readonly("input", &Tensor::input)
      .def_property_readonly("dtype", [](const Tensor& tensor) { return text(tensor.dtype); })
      .def_readonly("shape", &Tensor::shape)
      .def_readonly("least", &Tensor::least)
      .def_readonly("usual", &Tensor::usual)
      .def_readonly("most", &Tensor::most);
  py::class_<Engine, std::shared_ptr<Engine>>(m, "Engine", py::module_local())
      .def(py::init(&open_engine), py::arg("library"), py::arg("device"), py::arg("plan"))
      .def_property_readonly("tensors", &Engine::tensors)
      .def("layers_json", &Engine::layers_json, py::call_guard<py::gil_scoped_release>());
}

void bind_session(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  py::class_<Session>(m, "Session", py::module_local())
      .def(py::init<std::shared_ptr<Engine>, const std::vector<std::string>&,
                    const std::vector<std::string>&>(),
           py::arg("engine"), py::arg("inputs"), py::arg("outputs"), Release())
      .def("run", &run, py::arg("inputs"), py::arg("outputs"), Release())
      .def("set_shape", &Session::set_shape, py::arg("name"), py::arg("shape"), Release())
      .def("shape", &Session::shape, py::arg("name"), Release())
      .def(
          "address",
          [](Session& session, const std::string& name) {
            return reinterpret_cast<std::uintptr_t>(session.address(name));
          },
          py::arg("name"), Release())
      .def(
          "bind",
          [](Session& session, const std::string& name, std::uintptr_t address) {
            session.bind(name, reinterpret_cast<void*>(address));
          },
          py::arg("name"), py::arg("address"), Release())
      .def(
          "enqueue",
          [](Session& session, std::uintptr_t stream) {
            session.enqueue(reinterpret_cast<trt::Stream>(stream));
          },
          py::arg("stream"), Release())
      .def(
          "enqueue_one",
          [](Session& session, std::uintptr_t input, const std::vector<std::uintptr_t>& outputs,
             std::uintptr_t stream) {
            std::vector<void*> places;
            for (const std::uintptr_t to : outputs) places.push_back(reinterpret_cast<void*>(to));
            session.enqueue_one(reinterpret_cast<void*>(input), places,
                                reinterpret_cast<trt::Stream>(stream));
          },
          py::arg("input"), py::arg("outputs"), py::arg("stream"), Release())
      .def_property_readonly(
          "stream",
          [](const Session& session) { return reinterpret_cast<std::uintptr_t>(session.stream()); })
      .def("profile", &Session::profile, py::arg("runs"), Release());
}

}  // namespace
}  // namespace detrx

PYBIND11_MODULE(DETRX_TRT_MODULE, m, py::mod_gil_not_used()) {
  using namespace detrx;
  m.doc() = "Runs TensorRT engines by a TensorRT library that is opened while the program runs.";
  py::register_local_exception_translator(&translate);
  m.attr("__version__") = DETRX_VERSION;
  m.attr("COMPILED") = numbers(trt::compiled_version());
  m.def("version_of", [](int number) {
    const Version version = trt::version_of(number);
    return py::make_tuple(version.name(), version.rtx);
  });
  m.def("take_log", &trt::take_log);
  bind_library(m);
  bind_engine(m);
  bind_session(m);
}
