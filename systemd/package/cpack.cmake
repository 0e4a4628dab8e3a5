# The two packages of one build. Included by systemd/CMakeLists.txt.
# The .tar.gz brings its copy of ISA-L, which few distributions install by themselves; the .deb depends on the distribution's.
find_library(HEADRACE_ISAL_FILE NAMES libisal.so.2 REQUIRED)
file(REAL_PATH ${HEADRACE_ISAL_FILE} isal_real)
install(FILES ${isal_real} DESTINATION usr/lib/headrace RENAME libisal.so.2 COMPONENT libraries
        PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

set(CPACK_GENERATOR "DEB;TGZ")
set(CPACK_PACKAGE_NAME headrace)
set(CPACK_PACKAGE_VENDOR "The Headrace authors")
set(CPACK_PACKAGE_CONTACT "The Headrace authors <headrace@localhost>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Model images that are mounted at once and read while they come")
set(CPACK_PACKAGE_DESCRIPTION "A containerd snapshotter and a FUSE daemon that serve the layers of OCI images lazily, verified chunk by chunk,
and the command headrace, which builds such images, sets a node up (headrace install) and finds what is wrong (headrace doctor).")
set(CPACK_PACKAGING_INSTALL_PREFIX "/")
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_CURRENT_LIST_DIR}/generators.cmake)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "containerd (>= 1.6) | containerd.io, ca-certificates, bash-completion")
# A pod is not to notice an upgrade: what an older package left is taken over, never stopped (postinst).
set(scripts ${CMAKE_CURRENT_LIST_DIR})
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA "${scripts}/postinst;${scripts}/prerm;${scripts}/postrm;${scripts}/conffiles")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
