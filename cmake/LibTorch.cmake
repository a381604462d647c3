# Finds LibTorch and makes the target uvit::torch.
# Order: a LibTorch that the user names through CMAKE_PREFIX_PATH, else the one that tools/setup.sh put into .venv.
# The pip build of LibTorch was made with CUDA, and its own CMake package refuses to load without a CUDA toolkit; the
# libraries themselves need none, so they are linked directly. Cuda.cmake adds the CUDA ones.
set(_hints)
foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND _hints "${prefix}" "${prefix}/../.." "${prefix}/../../..")
endforeach()
file(GLOB _venv_torch "${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
list(APPEND _hints ${_venv_torch})

find_path(UVIT_TORCH_ROOT lib/libtorch_cpu.so HINTS ${_hints} NO_DEFAULT_PATH)
if(NOT UVIT_TORCH_ROOT)
  message(FATAL_ERROR "LibTorch not found: run tools/setup.sh, or pass -DCMAKE_PREFIX_PATH=<libtorch>")
endif()
set(_version_header "${UVIT_TORCH_ROOT}/include/torch/headeronly/version.h")
if(NOT EXISTS "${_version_header}") # before 2.9
  set(_version_header "${UVIT_TORCH_ROOT}/include/torch/csrc/api/include/torch/version.h")
endif()
file(STRINGS "${_version_header}" _lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX MATCHALL "[0-9]+" _torch_version "${_lines}")
list(JOIN _torch_version "." _torch_version)
message(STATUS "LibTorch: ${UVIT_TORCH_ROOT} (${_torch_version})")

find_package(OpenMP REQUIRED) # without it at::parallel_for is silently serial
# By its flag alone: given as a path, the compiler's libgomp makes CMake warn that LibTorch's own hides it, which is the one that both are to load.
set_target_properties(OpenMP::OpenMP_CXX PROPERTIES INTERFACE_LINK_LIBRARIES "" INTERFACE_LINK_OPTIONS "${OpenMP_CXX_FLAGS}")

add_library(uvit_torch INTERFACE)
add_library(uvit::torch ALIAS uvit_torch)
target_include_directories(uvit_torch SYSTEM INTERFACE
  "${UVIT_TORCH_ROOT}/include" "${UVIT_TORCH_ROOT}/include/torch/csrc/api/include")
# LibTorch's include folder brings a newer fmt whose library it does not export: the system's headers, which fit the library we link, go first.
find_path(UVIT_FMT_INCLUDE fmt/core.h REQUIRED)
file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/fmt_first")
file(CREATE_LINK "${UVIT_FMT_INCLUDE}/fmt" "${PROJECT_BINARY_DIR}/fmt_first/fmt" SYMBOLIC)
target_include_directories(uvit_torch SYSTEM BEFORE INTERFACE "${PROJECT_BINARY_DIR}/fmt_first")
target_link_libraries(uvit_torch INTERFACE "${UVIT_TORCH_ROOT}/lib/libtorch_cpu.so" "${UVIT_TORCH_ROOT}/lib/libc10.so"
  OpenMP::OpenMP_CXX)

# libtorch_cpu needs the cudart and cupti wheels that lie beside torch in site-packages.
file(GLOB _nvidia_libs "${UVIT_TORCH_ROOT}/../nvidia/*/lib")
target_link_options(uvit_torch INTERFACE "LINKER:-rpath,${UVIT_TORCH_ROOT}/lib")
foreach(dir IN LISTS _nvidia_libs)
  target_link_options(uvit_torch INTERFACE "LINKER:-rpath,${dir}" "LINKER:-rpath-link,${dir}")
endforeach()
