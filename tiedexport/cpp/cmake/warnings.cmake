# Warnings for our own code, and the sanitizers of a build made for testing.
add_library(tiedexport_warnings INTERFACE)
target_compile_options(tiedexport_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
  $<$<BOOL:${TIEDEXPORT_WERROR}>:-Werror>)
if(TIEDEXPORT_SANITIZE)
  set(flags -fsanitize=${TIEDEXPORT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  if(TIEDEXPORT_SANITIZE MATCHES "address.*undefined" AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # Kernels take a third of the time to compile: what is left out, and inlined, ASan finds too.
    list(APPEND flags -fno-sanitize=null,object-size)
    add_compile_options("SHELL:--param asan-instrumentation-with-call-threshold=0")
  endif()
  add_compile_options(${flags})
  add_link_options(${flags})
endif()
