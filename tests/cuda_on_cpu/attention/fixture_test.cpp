#include "tests/cuda_on_cpu/attention/emulated_attention.h"
#include "tests/kernels/attention_fixture.h"

using namespace uvit::kernels;
using namespace uvit::test;

TEST_CASE("CUDA attention fixtures: forward and gradients, the edge cases too") {
  for_each_fixture([](const std::string& where, const uvit::TensorFile& file, const std::string& name, const Reference& problem) {
    FusedRun fused = emulate(problem, Dtype::f32);
    check_results(where + " cuda", file, name, fused.result, 5e-6, 3e-5);
    for (Dtype dtype : {Dtype::bf16, Dtype::f16}) {
      INFO(where);
      Reference half = problem;
      for (auto* t : {&half.q, &half.k, &half.v, &half.q2, &half.k2, &half.v2, &half.dout})
        for (double& x : *t) x = rounded(static_cast<float>(x), dtype);
      check_emulated(half, dtype);
    }
  });
}
