# Who links the archive into a library of his own does not export our functions from it.
set_property(SOURCE src/capi.cc src/capi_session.cc APPEND PROPERTY
  COMPILE_DEFINITIONS TIEDEXPORT_STATIC)

# One object in which all names but the interface's are local: a program may hold another version
# of Highway, compiled with other options, and of functions of the same name the linker takes the
# first. LLD and gold lack what that needs; there it is an ordinary archive.
execute_process(COMMAND ${CMAKE_LINKER} --version OUTPUT_VARIABLE linker ERROR_QUIET)
if(CMAKE_OBJCOPY AND linker MATCHES "GNU ld")
  set(whole ${CMAKE_CURRENT_BINARY_DIR}/tiedexport${CMAKE_CXX_OUTPUT_EXTENSION})
  add_custom_command(OUTPUT ${whole}
    COMMAND ${CMAKE_LINKER} -r --force-group-allocation -o ${whole}
      $<TARGET_OBJECTS:tiedexport_internal>
    COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=tiedexport_* ${whole}
    DEPENDS $<TARGET_OBJECTS:tiedexport_internal>
    COMMAND_EXPAND_LISTS VERBATIM)
  add_library(tiedexport STATIC ${whole})
else()
  add_library(tiedexport STATIC $<TARGET_OBJECTS:tiedexport_internal>)
endif()
target_compile_definitions(tiedexport INTERFACE TIEDEXPORT_STATIC)
# CMake links a program with C++ in it by the C++ compiler, where the project has that language.
target_link_libraries(tiedexport INTERFACE $<$<LINK_LANGUAGE:C>:stdc++$<SEMICOLON>m>)
