include(tensorrt/doubles.cmake)
tiedexport_link_cuda_double(tensorrt_driver_test)
if(tensorrt_missing) # the library leaves these out then; they are tested everywhere
  target_sources(tensorrt_driver_test PRIVATE ../src/tensorrt/driver.cc ../src/tensorrt/gpu.cc)
else()
  target_compile_definitions(tensorrt_driver_test PRIVATE TIEDEXPORT_TENSORRT_COMPILED)
endif()
