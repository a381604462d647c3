# c10d's back ends, each seen by one source file of uvit_distributed. Their headers are compiled without the shared precompiled one, which is made
# without these macros.
set(_gloo "${PROJECT_SOURCE_DIR}/src/distributed/gloo_backend.cpp")
set_source_files_properties("${_gloo}" PROPERTIES SKIP_PRECOMPILE_HEADERS ON COMPILE_DEFINITIONS USE_C10D_GLOO
  INCLUDE_DIRECTORIES "${PROJECT_SOURCE_DIR}/src/distributed/gloo_stub")
if(UVIT_CUDA)
  find_path(UVIT_NCCL_INCLUDE nccl.h HINTS "${UVIT_TORCH_ROOT}/../nvidia/nccl/include" ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
  set(_nccl "${PROJECT_SOURCE_DIR}/src/distributed/cuda/nccl_backend.cpp")
  set_source_files_properties("${_nccl}" PROPERTIES SKIP_PRECOMPILE_HEADERS ON COMPILE_DEFINITIONS USE_C10D_NCCL)
  set_property(SOURCE "${_nccl}" APPEND PROPERTY INCLUDE_DIRECTORIES "${UVIT_NCCL_INCLUDE}")
endif()
