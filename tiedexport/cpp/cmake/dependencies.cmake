# Highway, of which only headers are used: nothing of it is linked or installed.
find_package(Threads REQUIRED)
add_library(tiedexport_third_party INTERFACE)

function(tiedexport_headers name header package url)
  string(TOUPPER ${name} upper)
  find_path(${upper}_INCLUDE_DIR ${header})
  if(NOT ${upper}_INCLUDE_DIR AND TIEDEXPORT_FETCH)
    include(FetchContent)
    FetchContent_Declare(${name} URL ${url})
    FetchContent_GetProperties(${name})
    if(NOT ${name}_POPULATED)
      FetchContent_Populate(${name})
    endif()
    find_path(${upper}_INCLUDE_DIR ${header} HINTS ${${name}_SOURCE_DIR} ${${name}_SOURCE_DIR}/include)
  endif()
  if(NOT ${upper}_INCLUDE_DIR)
    message(FATAL_ERROR "${header} was not found. Type: apt-get install ${package}\n"
      "or configure with -DTIEDEXPORT_FETCH=ON, which downloads it,\n"
      "or with -D${upper}_INCLUDE_DIR=FOLDER, the folder that holds ${header}.")
  endif()
  target_include_directories(tiedexport_third_party SYSTEM INTERFACE
    $<BUILD_INTERFACE:${${upper}_INCLUDE_DIR}>)
endfunction()

tiedexport_headers(highway hwy/highway.h libhwy-dev
  https://github.com/google/highway/archive/refs/tags/1.2.0.tar.gz)
