# The TensorRT backend: compiled where NVIDIA's headers are found, which decide the major that is
# loaded at run time. Nothing of NVIDIA is linked. TensorRT-RTX's headers serve as well.
find_path(TensorRT_INCLUDE_DIR NvInfer.h
  HINTS $ENV{TensorRT_ROOT} $ENV{TENSORRT_ROOT} /usr/local/tensorrt /usr/src/tensorrt /opt/tensorrt
  PATH_SUFFIXES include
  DOC "The folder of NvInfer.h: TensorRT 10.12 or newer, or TensorRT-RTX")
find_path(CUDAToolkit_INCLUDE_DIR cuda_runtime_api.h
  HINTS $ENV{CUDA_HOME} $ENV{CUDA_PATH} /usr/local/cuda /opt/cuda
  PATH_SUFFIXES include targets/x86_64-linux/include targets/sbsa-linux/include
  DOC "The folder of cuda_runtime_api.h, which NvInfer.h includes")

# Sets `missing` to why the headers cannot be used, "" if they can.
function(tiedexport_tensorrt_missing missing)
  set(found "")
  if(NOT TensorRT_INCLUDE_DIR)
    set(found "NvInfer.h was not found at build time")
  elseif(NOT CUDAToolkit_INCLUDE_DIR)
    set(found "cuda_runtime_api.h, which NvInfer.h includes, was not found at build time")
  else()
    file(STRINGS ${TensorRT_INCLUDE_DIR}/NvInferVersion.h lines REGEX "^#define [A-Z_]+ +[0-9]+")
    foreach(part MAJOR MINOR)
      # The last of these names is that of TensorRT before 10.11.
      string(REGEX MATCH "(TRT_${part}_RTX|TRT_${part}_ENTERPRISE|NV_TENSORRT_${part}) +([0-9]+)"
        matched "${lines}")
      set(${part} "${CMAKE_MATCH_2}")
      set(name "${CMAKE_MATCH_1}")
    endforeach()
    if(NOT name STREQUAL "TRT_MINOR_RTX" AND "${MAJOR}.${MINOR}" VERSION_LESS 10.12)
      set(found "NvInfer.h was of TensorRT ${MAJOR}.${MINOR} at build time, too old: 10.12 or newer")
    endif()
  endif()
  set(${missing} "${found}" PARENT_SCOPE)
endfunction()

tiedexport_tensorrt_missing(tensorrt_missing)
if(NOT tensorrt_missing)
  file(STRINGS ${TensorRT_INCLUDE_DIR}/NvInferVersion.h tensorrt_rtx REGEX "^#define TRT_MAJOR_RTX ")
endif()
if(tensorrt_missing OR tensorrt_rtx) # the double of a library is one of libnvinfer
  list(APPEND TIEDEXPORT_TESTS_LEFT_OUT
    tensorrt_session_test tensorrt_refusal_test tensorrt_enqueue_test)
endif()
if(tensorrt_missing)
  message(STATUS "Backend tensorrt: ${tensorrt_missing} (-DTensorRT_INCLUDE_DIR=FOLDER)")
  set(tensorrt_sources src/tensorrt/absent.cc)
  set_source_files_properties(src/tensorrt/absent.cc PROPERTIES
    COMPILE_DEFINITIONS "TIEDEXPORT_TENSORRT_MISSING=\"${tensorrt_missing}\"")
else()
  message(STATUS "Backend tensorrt: ${TensorRT_INCLUDE_DIR}")
  file(GLOB tensorrt_sources CONFIGURE_DEPENDS src/tensorrt/*.cc)
  list(FILTER tensorrt_sources EXCLUDE REGEX "/absent\\.cc$")
  # NVIDIA's headers are for these files alone, and their warnings for nobody.
  set_source_files_properties(${tensorrt_sources} PROPERTIES
    COMPILE_OPTIONS "-isystem${TensorRT_INCLUDE_DIR};-isystem${CUDAToolkit_INCLUDE_DIR}")
endif()
list(APPEND TIEDEXPORT_BACKEND_SOURCES ${tensorrt_sources})
