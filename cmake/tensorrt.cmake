# DETRX_WITH_TENSORRT: whether csrc/trt is part of the build.
# DETRX_TENSORRT_MAJORS: the majors whose headers were found, as 8;10. The library itself is opened, never linked.
# DETRX_TENSORRT_INCLUDE_<major>: the folder of the headers. Of several of one major the oldest counts: a library only ever
# adds functions behind those that were there, so that what is compiled against it serves all later ones.
# DETRX_CUDA_HEADERS: the folder of cuda_runtime_api.h, which those headers include for the names of its types.

set(DETRX_TENSORRT_OLDEST_8 8.5)
set(DETRX_TENSORRT_OLDEST_10 10.1)
set(DETRX_TENSORRT_OLDEST_11 11.0)

# The value of a macro of NvInferVersion.h. TensorRT 10 and later name it by way of another macro (TRT_MAJOR_ENTERPRISE).
function(detrx_tensorrt_macro header name out)
  file(STRINGS "${header}" line REGEX "^#define ${name} " LIMIT_COUNT 1)
  string(REGEX REPLACE "^#define ${name} +([A-Za-z0-9_]+).*$" "\\1" value "${line}")
  if(value MATCHES "^[A-Z_]")
    detrx_tensorrt_macro("${header}" "${value}" value)
  endif()
  set(${out} "${value}" PARENT_SCOPE)
endfunction()

# Notes the headers in a folder, unless older ones of the same major have been, or detrx does not know the version.
macro(detrx_tensorrt_note include)
  detrx_tensorrt_macro("${include}/NvInferVersion.h" NV_TENSORRT_MAJOR major)
  detrx_tensorrt_macro("${include}/NvInferVersion.h" NV_TENSORRT_MINOR minor)
  set(noted "${DETRX_TENSORRT_MINOR_${major}}")
  if(NOT DEFINED DETRX_TENSORRT_OLDEST_${major} OR "${major}.${minor}" VERSION_LESS "${DETRX_TENSORRT_OLDEST_${major}}")
    message(STATUS "TensorRT ${major}.${minor} in ${include} is none that detrx runs on (8.5 and later, 10, 11)")
  elseif("${noted}" STREQUAL "" OR minor LESS noted)
    set(DETRX_TENSORRT_MINOR_${major} ${minor})
    set(DETRX_TENSORRT_INCLUDE_${major} "${include}")
    list(APPEND DETRX_TENSORRT_MAJORS ${major})
    list(REMOVE_DUPLICATES DETRX_TENSORRT_MAJORS)
  endif()
endmacro()

set(DETRX_TENSORRT_MAJORS "")
set(DETRX_TENSORRT_FOUND "")
set(DETRX_TENSORRT_MISSING "")
foreach(major IN ITEMS 8 10 11)
  set(DETRX_TENSORRT_MINOR_${major} "")
endforeach()
if(NOT DETRX_TENSORRT STREQUAL "OFF")
  foreach(root IN LISTS DETRX_TENSORRT_ROOTS ITEMS system)
    unset(include CACHE)
    if(root STREQUAL "system")
      find_path(include NvInferVersion.h PATH_SUFFIXES include aarch64-linux-gnu x86_64-linux-gnu)
    else()
      find_path(include NvInferVersion.h PATHS "${root}/include" "${root}" NO_DEFAULT_PATH)
      if(NOT include)
        message(FATAL_ERROR "[DETRX_TENSORRT_ROOTS] must name folders with include/NvInferVersion.h, got ${root}")
      endif()
    endif()
    if(include)
      detrx_tensorrt_note("${include}")
    endif()
    unset(include CACHE)
  endforeach()
  foreach(major IN LISTS DETRX_TENSORRT_MAJORS)
    list(APPEND DETRX_TENSORRT_FOUND
         "TensorRT ${major}.${DETRX_TENSORRT_MINOR_${major}} in ${DETRX_TENSORRT_INCLUDE_${major}}")
  endforeach()
  find_path(
    DETRX_CUDA_HEADERS cuda_runtime_api.h
    HINTS ${CUDAToolkit_INCLUDE_DIRS} $ENV{CUDA_HOME}/include $ENV{CUDA_PATH}/include
    PATHS /usr/local/cuda/include)
  if(NOT DETRX_TENSORRT_FOUND)
    set(DETRX_TENSORRT_FOUND "no headers")
    set(DETRX_TENSORRT_MISSING "no NvInferVersion.h; name its folder in DETRX_TENSORRT_ROOTS")
  elseif(NOT DETRX_CUDA_HEADERS)
    set(DETRX_TENSORRT_MISSING "no cuda_runtime_api.h; name its folder in DETRX_CUDA_HEADERS")
  endif()
endif()
detrx_decide(TENSORRT "${DETRX_TENSORRT}" "${DETRX_TENSORRT_FOUND}" "${DETRX_TENSORRT_MISSING}")
if(NOT DETRX_WITH_TENSORRT)
  set(DETRX_TENSORRT_MAJORS "")
endif()
