# libuvit_ops.so: the attention operator for whoever loads it (Python) or links it (C++), and what `cmake --install` puts down:
#   lib/libuvit_ops.so, lib/libuvit_kernels.a, include/uvit/{attention,kernels}/, lib/cmake/uvit/.
# find_package(uvit) gives uvit::ops and uvit::kernels.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(uvit_ops SHARED src/attention/library/uvit_ops.cpp)
target_link_libraries(uvit_ops PRIVATE uvit_attention uvit_options)
target_link_options(uvit_ops PRIVATE "LINKER:--as-needed") # only what the operator itself uses
target_precompile_headers(uvit_ops REUSE_FROM uvit_torch_pch)
set_target_properties(uvit_ops PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}" INSTALL_RPATH_USE_LINK_PATH ON)

install(TARGETS uvit_ops uvit_kernels LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES src/attention/operator.h src/attention/eager.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/uvit/attention)
install(FILES kernels/attention/kinds.h kernels/attention/params.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/uvit/kernels/attention)
install(FILES kernels/attention/cpu/attention_cpu.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/uvit/kernels/attention/cpu)

set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/uvit")
configure_package_config_file(cmake/uvitConfig.cmake.in "${PROJECT_BINARY_DIR}/uvitConfig.cmake" INSTALL_DESTINATION "${package_folder}"
  PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/uvitConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/uvitConfig.cmake" "${PROJECT_BINARY_DIR}/uvitConfigVersion.cmake" DESTINATION "${package_folder}")
