# What users link, `tiedexport::runtime`: the objects that the tests see from inside, as one library
# that shows nothing but the C interface.
include(GNUInstallDirs)
set_target_properties(tiedexport_internal PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)
# A unique symbol keeps a library from being closed, and an archive from having names of its own.
target_compile_options(tiedexport_internal PRIVATE
  $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
# Whatever the project around it does without, or takes: g++ 12 warns wrongly in C++20.
target_compile_options(tiedexport_internal PRIVATE -fexceptions -fno-fast-math)
set_target_properties(tiedexport_internal PROPERTIES CXX_STANDARD 17)
if(TIEDEXPORT_SHARED)
  add_library(tiedexport SHARED $<TARGET_OBJECTS:tiedexport_internal>)
else()
  include(cmake/static.cmake)
endif()
add_library(tiedexport::runtime ALIAS tiedexport)
set_target_properties(tiedexport PROPERTIES LINKER_LANGUAGE CXX EXPORT_NAME runtime)
target_compile_features(tiedexport INTERFACE c_std_99)
target_include_directories(tiedexport INTERFACE
  $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(tiedexport PRIVATE Threads::Threads ${CMAKE_DL_LIBS})

if(TIEDEXPORT_SHARED)
  set(exports ${CMAKE_CURRENT_SOURCE_DIR}/cmake/exports.map)
  set_target_properties(tiedexport PROPERTIES LINK_DEPENDS ${exports})
  target_link_options(tiedexport PRIVATE -Wl,--version-script=${exports})
  if(NOT TIEDEXPORT_SANITIZE) # whose functions come with the program
    target_link_options(tiedexport PRIVATE -Wl,--no-undefined)
  endif()
  if(NOT SKBUILD) # a wheel has no links: it would hold the library once a name
    set_target_properties(tiedexport PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 1)
  endif()
endif()

if(TIEDEXPORT_INSTALL)
  include(cmake/install.cmake)
endif()
