# The options of the build. pip passes them as `-C cmake.define.DETRX_CUDA=OFF`.

set(DETRX_CUDA AUTO CACHE STRING "CUDA kernels: AUTO uses a CUDA compiler where there is one, ON fails without, OFF leaves them out")
set(DETRX_TENSORRT AUTO CACHE STRING "TensorRT runtime: AUTO uses headers where there are some, ON fails without, OFF leaves it out")
set(DETRX_TENSORRT_ROOTS "$ENV{DETRX_TENSORRT_ROOTS}" CACHE STRING "Folders that each hold the include/NvInfer.h of one TensorRT; beside them the system's is looked for")
option(DETRX_NVMM "With the CUDA kernels: camera buffers (DMABUF, NVMM) read by the GPU where they lie, on a Jetson" OFF)
option(DETRX_WERROR "Treat compiler warnings as errors" OFF)
set(DETRX_SANITIZE "" CACHE STRING "Sanitizers for all native code, as address,undefined or thread")

foreach(DETRX_OPTION DETRX_CUDA DETRX_TENSORRT)
  set_property(CACHE ${DETRX_OPTION} PROPERTY STRINGS AUTO ON OFF)
  string(TOUPPER "${${DETRX_OPTION}}" ${DETRX_OPTION})
  if(NOT ${DETRX_OPTION} MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "[${DETRX_OPTION}] must be AUTO, ON or OFF, got \"${${DETRX_OPTION}}\"")
  endif()
endforeach()

# Decide about one optional part and say so: sets DETRX_WITH_<part> in the caller.
#   missing: what stands in the way, empty when nothing does; found: what was seen on this machine.
function(detrx_decide part wanted found missing)
  set(with OFF)
  if(wanted STREQUAL "OFF")
    message(STATUS "${part}: left out, as DETRX_${part}=OFF asks")
  elseif(missing STREQUAL "")
    set(with ON)
    message(STATUS "${part}: built (${found})")
  elseif(wanted STREQUAL "ON")
    message(FATAL_ERROR "[DETRX_${part}=ON] cannot be built: ${missing} (found: ${found}). Configure with DETRX_${part}=AUTO or OFF to go on without.")
  else()
    message(STATUS "${part}: left out: ${missing} (found: ${found})")
  endif()
  set(DETRX_WITH_${part} ${with} PARENT_SCOPE)
endfunction()
