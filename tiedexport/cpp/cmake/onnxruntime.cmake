# The ONNX Runtime backend: compiled where its C header is found; the library is loaded at run time.
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h
  HINTS $ENV{ONNXRUNTIME_ROOT} /usr/local/onnxruntime /opt/onnxruntime
  PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session
  DOC "The folder of onnxruntime_c_api.h: ONNX Runtime 1.22 or newer")

# Sets `missing` to why the header cannot be used, "" if it can.
function(tiedexport_onnxruntime_missing missing)
  set(found "")
  if(NOT ONNXRUNTIME_INCLUDE_DIR)
    set(found "onnxruntime_c_api.h was not found at build time")
  else()
    file(STRINGS ${ONNXRUNTIME_INCLUDE_DIR}/onnxruntime_c_api.h line
      REGEX "^#define ORT_API_VERSION +[0-9]+")
    string(REGEX MATCH "[0-9]+$" version "${line}")
    if("${version}" VERSION_LESS 22)
      set(found "onnxruntime_c_api.h was of 1.${version} at build time, too old: 1.22 or newer")
    endif()
  endif()
  set(${missing} "${found}" PARENT_SCOPE)
endfunction()

tiedexport_onnxruntime_missing(onnxruntime_missing)
if(onnxruntime_missing)
  message(STATUS "Backend onnxruntime: ${onnxruntime_missing} (-DONNXRUNTIME_INCLUDE_DIR=FOLDER)")
  set(onnxruntime_sources src/onnxruntime/absent.cc)
  set_source_files_properties(src/onnxruntime/absent.cc PROPERTIES
    COMPILE_DEFINITIONS "TIEDEXPORT_ONNXRUNTIME_MISSING=\"${onnxruntime_missing}\"")
  list(APPEND TIEDEXPORT_TESTS_LEFT_OUT onnxruntime_test)
else()
  message(STATUS "Backend onnxruntime: ${ONNXRUNTIME_INCLUDE_DIR}")
  file(GLOB onnxruntime_sources CONFIGURE_DEPENDS src/onnxruntime/*.cc)
  list(FILTER onnxruntime_sources EXCLUDE REGEX "/absent\\.cc$")
  # The foreign header is for these files alone, and its warnings for nobody.
  set_source_files_properties(${onnxruntime_sources} PROPERTIES
    COMPILE_OPTIONS "-isystem${ONNXRUNTIME_INCLUDE_DIR}")
endif()
list(APPEND TIEDEXPORT_BACKEND_SOURCES ${onnxruntime_sources})
