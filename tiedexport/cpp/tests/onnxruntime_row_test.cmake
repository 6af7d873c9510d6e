if(NOT onnxruntime_missing)
  target_compile_definitions(onnxruntime_row_test PRIVATE TIEDEXPORT_ONNXRUNTIME_COMPILED)
endif()
