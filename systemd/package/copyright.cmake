# The licences of Headrace and of what is linked into its programs: cmake -DLICENSE= -DOUT= -P copyright.cmake
# The texts are those that Debian ships with the packages the archives and headers come from; a missing one is an error.
file(GLOB fuse RELATIVE /usr/share/doc /usr/share/doc/libfuse3-[0-9])  # the package that the static libfuse is newer than
set(packages libgrpc++-dev libgrpc-dev libprotobuf-dev libabsl-dev libc-ares-dev libre2-dev libspdlog-dev libfmt-dev libyaml-cpp-dev libzstd-dev
    libsqlite3-dev libxxhash-dev libisal-dev ${fuse} libtomlplusplus-dev nlohmann-json3-dev libcli11-dev libgcc-s1)
if(NOT fuse)
  message(FATAL_ERROR "the licence of libfuse is missing (Debian's package fuse3)")
endif()
file(READ ${LICENSE} text)
set(out "Headrace is under the Apache License, version 2.0 (below). Linked into its programs, in whole or in part, are the libraries that follow it,\n"
        "each under its own licence. Headrace's own source is what libfuse's licence (LGPL-2.1) asks for: with it the programs can be linked anew.\n\n")
string(JOIN "" out ${out})
string(APPEND out "${text}")
foreach(package IN LISTS packages)
  set(from /usr/share/doc/${package}/copyright)
  if(NOT EXISTS ${from})
    message(FATAL_ERROR "the licence of ${package} is missing: ${from}")
  endif()
  file(READ ${from} text)
  string(APPEND out "\n\n======== ${package} ========\n\n${text}")
endforeach()
file(READ /usr/share/common-licenses/LGPL-2.1 text)
string(APPEND out "\n\n======== LGPL-2.1 (libfuse) ========\n\n${text}")
file(WRITE ${OUT} "${out}")
