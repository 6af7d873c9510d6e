if(NOT tensorrt_missing)
  target_compile_definitions(tensorrt_row_test PRIVATE TIEDEXPORT_TENSORRT_COMPILED)
endif()
