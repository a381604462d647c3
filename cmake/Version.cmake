# The header uvit_version.h with the version and the git commit, written anew in every build and touched only where it changed.
# The same file is the script that writes it: cmake -DSOURCE=... -DOUTPUT=... -DVERSION=... -P Version.cmake
if(CMAKE_SCRIPT_MODE_FILE)
  set(commit "unknown")
  if(EXISTS "${SOURCE}/.git")
    execute_process(COMMAND git describe --always --exclude=* --abbrev=12 --dirty WORKING_DIRECTORY "${SOURCE}"
      OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE result)
    if(result EQUAL 0)
      set(commit "${found}")
    endif()
  endif()
  file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "#define UVIT_VERSION \"${VERSION}\"\n#define UVIT_GIT_COMMIT \"${commit}\"\n")
  return()
endif()

add_custom_target(uvit_version
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUTPUT=${PROJECT_BINARY_DIR}/generated/uvit_version.h -DVERSION=${PROJECT_VERSION}
          -P ${CMAKE_CURRENT_LIST_FILE}
  BYPRODUCTS "${PROJECT_BINARY_DIR}/generated/uvit_version.h" VERBATIM COMMENT "")
add_dependencies(uvit_core uvit_version)
target_include_directories(uvit_core PRIVATE "${PROJECT_BINARY_DIR}/generated")
