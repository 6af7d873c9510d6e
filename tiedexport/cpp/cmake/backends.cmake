# Backends beside `native`: each is compiled where its headers are found, and loads its library at
# run time. A backend's own .cmake sets TIEDEXPORT_BACKEND_SOURCES and TIEDEXPORT_BACKEND_DEFINITIONS.
set(TIEDEXPORT_BACKEND_SOURCES "")
set(TIEDEXPORT_BACKEND_DEFINITIONS "")
include(cmake/tensorrt.cmake OPTIONAL)
include(cmake/onnxruntime.cmake OPTIONAL)
