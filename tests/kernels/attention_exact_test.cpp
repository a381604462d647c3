#include "tests/kernels/attention_case.h"

using namespace uvit::kernels;
using namespace uvit::test;

// There o is that key's value and delta = dout . o its dP: bit by bit, if both are summed alike, for a ds of 0 beside scores of any size.
TEST_CASE("fused attention: where one key has all the weight, the gradients of queries and keys are exactly 0") {
  for (Kind kind : {Kind::softmax, Kind::cog, Kind::softmax1})
    for (Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (std::int64_t width : {8, 40, 64, 72, 104}) {
        Reference problem = random_problem(Kind::softmax, {1, 2, 37, 70, 72, width}, false, dtype, 6);
        problem.kind = kind, problem.scale = 0.125;  // scores of that key are exact
        for (std::size_t i = 0; i < problem.q.size(); ++i) problem.q[i] = (i % 3 ? 1 : -1) * (i / 72 % 2 ? 1.0 : 1.5);
        for (std::size_t i = 0; i < problem.k.size(); ++i) problem.k[i] = i / 72 % 70 == 41 ? (i % 3 ? 30 : -30) : problem.k[i] / 8;
        with_each_isa([&](const std::string& isa) {
          FusedRun run(problem, dtype);
          INFO(isa << " " << kind_name(kind) << (dtype == Dtype::f32 ? " fp32" : " bf16") << " Dv" << width);
          CHECK(max_abs(run.result.dq) == 0);
          CHECK(max_abs(run.result.dk) == 0);
          CHECK(max_abs(run.result.dv) > 1);
        });
      }
}
