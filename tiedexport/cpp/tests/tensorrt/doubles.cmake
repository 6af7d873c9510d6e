# Doubles of NVIDIA's libraries, which are there under NVIDIA's names for a test that links them:
# the library's dlopen finds what is loaded already.
function(tiedexport_link_cuda_double test)
  if(NOT TARGET tiedexport_cuda_double)
    add_library(tiedexport_cuda_double SHARED tensorrt/cuda_double.cc)
    set_target_properties(tiedexport_cuda_double PROPERTIES
      OUTPUT_NAME cuda SOVERSION 1 LIBRARY_OUTPUT_DIRECTORY double_of_cuda)
    target_compile_features(tiedexport_cuda_double PRIVATE cxx_std_17)
    target_link_libraries(tiedexport_cuda_double PRIVATE tiedexport_warnings)
  endif()
  target_link_libraries(${test} PRIVATE tiedexport_cuda_double)
endfunction()

function(tiedexport_link_nvinfer_double test)
  tiedexport_link_cuda_double(${test})
  if(NOT TARGET tiedexport_nvinfer_double)
    file(STRINGS ${TensorRT_INCLUDE_DIR}/NvInferVersion.h major
      REGEX "^#define (TRT_MAJOR_ENTERPRISE|NV_TENSORRT_MAJOR) +[0-9]+")
    string(REGEX MATCH "(MAJOR|ENTERPRISE) +([0-9]+)" major "${major}")
    add_library(tiedexport_nvinfer_double SHARED tensorrt/nvinfer_double.cc)
    set_target_properties(tiedexport_nvinfer_double PROPERTIES
      OUTPUT_NAME nvinfer SOVERSION "${CMAKE_MATCH_2}" LIBRARY_OUTPUT_DIRECTORY double_of_nvinfer)
    target_compile_features(tiedexport_nvinfer_double PRIVATE cxx_std_17)
    target_include_directories(tiedexport_nvinfer_double SYSTEM PRIVATE
      ${TensorRT_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIR})
    target_link_libraries(tiedexport_nvinfer_double PRIVATE
      tiedexport_cuda_double tiedexport_warnings)
  endif()
  target_sources(${test} PRIVATE tensorrt/gpu_bundle.cc)
  target_link_libraries(${test} PRIVATE tiedexport_nvinfer_double)
endfunction()
