# Tests that run whole programs: the command line, its errors, the README's commands, a short real training.
set(UVIT_ASAN_BUILD "" CACHE PATH "A build with UVIT_SANITIZE whose test programs ctest runs too")
if(UVIT_ASAN_BUILD)
  foreach(layer core io config data kernels)
    add_test(NAME sanitizers_${layer} COMMAND "${UVIT_ASAN_BUILD}/tests/test_${layer}" "~[python]" WORKING_DIRECTORY "${PROJECT_BINARY_DIR}")
    set_tests_properties(sanitizers_${layer} PROPERTIES TIMEOUT 900 ENVIRONMENT "UBSAN_OPTIONS=print_stacktrace=1")
  endforeach()
endif()

set(UVIT_TSAN_BUILD "" CACHE PATH "A build with UVIT_SANITIZE=thread whose test programs ctest runs too")
if(UVIT_TSAN_BUILD)
  # The queue of work done ahead, the loader, the kernels under a parallel_for of std::threads: OpenMP's runtime would look like one large race.
  foreach(layer core data kernels)
    add_test(NAME threads_${layer} COMMAND "${UVIT_TSAN_BUILD}/tests/test_${layer}" "[threads]" WORKING_DIRECTORY "${PROJECT_BINARY_DIR}")
    set_tests_properties(threads_${layer} PROPERTIES TIMEOUT 600
      ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=${CMAKE_CURRENT_SOURCE_DIR}/thread_sanitizer_suppressions.txt")
  endforeach()
endif()

set(UVIT_FUZZ_BUILD "" CACHE PATH "A build of the preset fuzz whose fuzzers ctest runs for 20 seconds each")
if(UVIT_FUZZ_BUILD)
  file(GLOB fuzz_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/*.cpp")
  foreach(source IN LISTS fuzz_sources)
    get_filename_component(name "${source}" NAME_WE)
    add_test(NAME fuzz_${name} COMMAND bash "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/run.sh" "${UVIT_FUZZ_BUILD}/tests/fuzz/fuzz_${name}"
      "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/seeds/${name}" 20)
    set_tests_properties(fuzz_${name} PROPERTIES TIMEOUT 120 LABELS fuzz)
  endforeach()
endif()

function(uvit_script_test name timeout)
  set(test ${name})
  if(TEST ${name}) # a layer has that name
    set(test ${name}_program)
  endif()
  add_test(NAME ${test} COMMAND bash "${CMAKE_CURRENT_SOURCE_DIR}/programs/${name}.sh" "$<TARGET_FILE:uvit>" "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${test} PROPERTIES TIMEOUT ${timeout} SKIP_REGULAR_EXPRESSION "SKIPPED: ")
endfunction()
uvit_script_test(command_line 600)
uvit_script_test(bad_input 600)
uvit_script_test(readme_commands 1200)
uvit_script_test(latents 600)
uvit_script_test(garments 1200)
uvit_script_test(distributed 600)
uvit_script_test(shards 600)

# The attention operator as Python sees it, with the PyTorch that the program was built with.
if(TARGET test_attention)
  add_dependencies(test_attention uvit_ops)
  target_compile_definitions(test_attention PRIVATE UVIT_OPS_LIBRARY="$<TARGET_FILE:uvit_ops>")
  target_link_libraries(test_attention PRIVATE ${CMAKE_DL_LIBS})
endif()
set(programs "${CMAKE_CURRENT_SOURCE_DIR}/programs")
add_test(NAME operator_python COMMAND bash "${programs}/operator_python.sh" "$<TARGET_FILE:uvit_ops>" "${PROJECT_SOURCE_DIR}")
set_tests_properties(operator_python PROPERTIES TIMEOUT 600 SKIP_REGULAR_EXPRESSION "SKIPPED: ")
# No CUDA kernel spills registers, and none has more tensor-core instructions than its products need.
if(TARGET uvit_kernels_cuda)
  add_test(NAME cuda_machine_code COMMAND bash "${PROJECT_SOURCE_DIR}/tools/bench/sass_report.sh" --quiet "$<TARGET_FILE:uvit_kernels_cuda>")
  set_tests_properties(cuda_machine_code PROPERTIES TIMEOUT 600 SKIP_REGULAR_EXPRESSION "SKIPPED: ")
endif()
# What `cmake --install` puts down serves a project of its own.
add_test(NAME install COMMAND bash "${programs}/install.sh" "${PROJECT_BINARY_DIR}" "${CMAKE_COMMAND}" "${programs}/consumer")
set_tests_properties(install PROPERTIES TIMEOUT 600)
