# Warnings for our own code, and the sanitizers of a build made for testing.
add_library(tiedexport_warnings INTERFACE)
target_compile_options(tiedexport_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
  $<$<BOOL:${TIEDEXPORT_WERROR}>:-Werror>)
if(TIEDEXPORT_SANITIZE)
  set(flags -fsanitize=${TIEDEXPORT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_compile_options(${flags})
  add_link_options(${flags})
endif()
