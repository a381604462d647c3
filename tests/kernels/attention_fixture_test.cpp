#include "tests/kernels/attention_fixture.h"

using namespace uvit::kernels;
using namespace uvit::test;

TEST_CASE("attention fixtures: the reference in double and every instruction set in float32") {
  for_each_fixture([](const std::string& where, const uvit::TensorFile& file, const std::string& name, const Reference& problem) {
    Reference exact = problem;
    exact.forward();
    exact.backward();
    check_results(where + " reference", file, name, exact, 0, 1e-9, true);
    with_each_isa([&](const std::string& isa) {
      FusedRun fused(problem, Dtype::f32);
      check_results(where + " " + isa, file, name, fused.result, 5e-6, 3e-5);
    });
  });
}
