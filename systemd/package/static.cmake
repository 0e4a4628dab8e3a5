# HEADRACE_STATIC: archives instead of shared libraries, so that one package runs on distributions whose versions of gRPC, protobuf, abseil, RE2, fmt and the
# like differ. Debian's -dev packages have the archives; spdlog, toml++ and fmt have none and are compiled in from their headers. ISA-L has none either
# and stays shared (libisal.so.2 is the same everywhere).

# The libraries of a pkg-config module as archives where there are some; `shared` are those that stay.
function(headrace_archives prefix)
  set(shared ssl crypto curl z dl pthread rt m isal)
  set(archives)
  set(others)
  foreach(name IN LISTS ${prefix}_STATIC_LIBRARIES)
    if(name STREQUAL "atomic")
      continue()  # amd64 needs none of it
    endif()
    if(name IN_LIST shared)
      list(APPEND others ${name})
      continue()
    endif()
    unset(archive CACHE)
    find_library(archive NAMES lib${name}.a HINTS ${${prefix}_STATIC_LIBRARY_DIRS} ${${prefix}_LIBDIR})
    if(NOT archive)
      message(FATAL_ERROR "HEADRACE_STATIC: lib${name}.a is missing")
    endif()
    list(APPEND archives ${archive})
    unset(archive CACHE)
  endforeach()
  list(REMOVE_DUPLICATES archives)
  list(REMOVE_DUPLICATES others)
  # The shared ones stand in the group, too: behind what needs them, whatever else names them.
  string(JOIN "," group ${archives} ${others})
  set_target_properties(PkgConfig::${prefix} PROPERTIES INTERFACE_LINK_LIBRARIES "$<LINK_GROUP:RESCAN,${group}>")
endfunction()

foreach(prefix GRPCPP ZSTD SQLITE XXHASH RE2)
  headrace_archives(${prefix})
endforeach()

add_library(headrace_fmt STATIC ${CMAKE_CURRENT_LIST_DIR}/fmt_archive.cc)
target_compile_definitions(headrace_fmt PUBLIC FMT_SHARED)  # as the shared library is compiled: its symbols are visible
set_target_properties(spdlog::spdlog_header_only PROPERTIES INTERFACE_LINK_LIBRARIES "headrace_fmt;Threads::Threads")
target_compile_definitions(spdlog::spdlog_header_only INTERFACE HEADRACE_SPDLOG_FROM_HEADERS)  # what fusefs/base/log.h asks for
set(HEADRACE_SPDLOG spdlog::spdlog_header_only)
add_library(headrace_toml INTERFACE)
target_compile_definitions(headrace_toml INTERFACE TOML_HEADER_ONLY=1)
set(HEADRACE_TOML headrace_toml)
find_library(HEADRACE_YAML_ARCHIVE NAMES libyaml-cpp.a REQUIRED)
set(HEADRACE_YAML ${HEADRACE_YAML_ARCHIVE})

add_library(headrace_old_glibc OBJECT ${CMAKE_CURRENT_LIST_DIR}/old_glibc.cc)

# --exclude-libs: what is linked in is not offered to libcurl, which has its own zstd and compression libraries.
# RUNPATH: where the .tar.gz has its copy of libisal.
function(headrace_static_program name)
  target_link_libraries(${name} PRIVATE headrace_old_glibc)
  target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL -Wl,--as-needed)
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/headrace")
endfunction()
