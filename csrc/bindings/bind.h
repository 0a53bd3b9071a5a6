// What each file of this folder adds to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace detrx {

void bind_losses(pybind11::module_& m);
void bind_match(pybind11::module_& m);
void bind_ops(pybind11::module_& m);
void bind_run(pybind11::module_& m);

// The same operators on CUDA tensors: the last argument is the stream in place of the threads.
void bind_cuda(pybind11::module_& m);
void bind_cuda_run(pybind11::module_& m);  // what runs a model; bind_cuda calls it

}  // namespace detrx
