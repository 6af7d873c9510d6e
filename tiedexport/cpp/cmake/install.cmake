# `runtime` is what running needs, `development` what compiling against it needs.
include(CMakePackageConfigHelpers)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/tiedexport)

install(TARGETS tiedexport EXPORT tiedexport
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(DIRECTORY include/tiedexport DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT development)

install(EXPORT tiedexport NAMESPACE tiedexport:: FILE tiedexportTargets.cmake
  DESTINATION ${package_folder} COMPONENT development)
configure_package_config_file(cmake/tiedexportConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/tiedexportConfig.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/tiedexportConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tiedexportConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/tiedexportConfigVersion.cmake
  DESTINATION ${package_folder} COMPONENT development)

# Found from the .pc file's own place, so that an installation can be moved.
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" prefix_from_pc ${prefix_from_pc})
set(pc_libs "")
set(pc_cflags "")
if(NOT TIEDEXPORT_SHARED)
  set(pc_libs " -lstdc++ -lm -ldl -pthread")
  set(pc_cflags " -DTIEDEXPORT_STATIC")
endif()
configure_file(cmake/tiedexport.pc.in ${CMAKE_CURRENT_BINARY_DIR}/tiedexport.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tiedexport.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
