# The test sees ONNX Runtime's header through ours, and a double of a library that is too old.
target_include_directories(onnxruntime_test SYSTEM PRIVATE ${ONNXRUNTIME_INCLUDE_DIR})
add_library(old_onnxruntime MODULE onnxruntime/old_library.c)
target_compile_definitions(onnxruntime_test PRIVATE
  TIEDEXPORT_OLD_ONNXRUNTIME="$<TARGET_FILE:old_onnxruntime>")
add_dependencies(onnxruntime_test old_onnxruntime)
