# Read by cpack once for each generator (CPACK_PROJECT_CONFIG_FILE): which parts are in its package.
list(GET CPACK_INSTALL_CMAKE_PROJECTS 0 build)
set(CPACK_INSTALL_CMAKE_PROJECTS "${build};headrace;headrace;/")
if(CPACK_GENERATOR STREQUAL "TGZ")
  list(APPEND CPACK_INSTALL_CMAKE_PROJECTS "${build};headrace;libraries;/")
endif()
