#include "tests/cuda_on_cpu/attention/emulated_attention.h"

using namespace uvit::kernels;
using namespace uvit::test;
using uvit::cuda::emulator::Scope;

namespace {

constexpr Dtype kDtypes[] = {Dtype::bf16, Dtype::f16, Dtype::f32};
Kind kind_at(int i) { return static_cast<Kind>(i); }

uvit::cuda::emulator::Settings schedule(std::uint32_t seed) {
  uvit::cuda::emulator::Settings settings;
  settings.seed = seed;
  return settings;
}

struct Shape {
  Sizes sizes;
  bool causal;
};

/// Lengths that break tiles, keys other than queries, rows without keys, widths that are padded.
const std::vector<Shape> kShapes = {
    {{1, 2, 1, 1, 64, 64}, false},   {{1, 1, 63, 63, 64, 64}, true},     {{2, 1, 65, 130, 40, 64}, false}, {{1, 1, 130, 65, 64, 24}, true},
    {{1, 2, 65, 65, 128, 128}, false}, {{1, 1, 63, 130, 72, 128}, true}, {{1, 1, 1, 257, 64, 64}, false},  {{1, 1, 257, 1, 8, 8}, false},
    {{1, 1, 130, 257, 64, 64}, true},  {{1, 1, 257, 63, 128, 104}, false},
};

}  // namespace

TEST_CASE("CUDA attention: every kind and dtype, shapes in turn") {
  std::size_t shape = 0;
  for (int kind = 0; kind < kKindCount; ++kind)
    for (Dtype dtype : kDtypes)
      for (int n = 0; n < 2; ++n, ++shape) {
        const Shape& s = kShapes[shape * 3 % kShapes.size()];
        const Scope scope(schedule(static_cast<std::uint32_t>(shape % 4)));
        check_emulated(random_problem(kind_at(kind), s.sizes, s.causal, dtype, 1), dtype, n == 0);
      }
}

TEST_CASE("CUDA attention: every kind, dtype and shape, several schedules", "[.long]") {
  for (std::uint32_t seed : {0, 1, 2})
    for (int kind = 0; kind < kKindCount; ++kind)
      for (Dtype dtype : kDtypes)
        for (const Shape& s : kShapes)
          for (bool causal : {false, true}) {
            const Scope scope(schedule(seed));
            check_emulated(random_problem(kind_at(kind), s.sizes, causal, dtype, 1 + seed), dtype, seed != 1);
          }
}

TEST_CASE("CUDA attention: the paths that move data, for the race checker and the sanitizers", "[races]") {
  const std::pair<Kind, Dtype> variants[] = {{Kind::softmax, Dtype::bf16},     {Kind::cog, Dtype::f16},      {Kind::softpick, Dtype::bf16},
                                             {Kind::sda_weighted, Dtype::f16}, {Kind::dipole, Dtype::bf16},  {Kind::diff, Dtype::f16},
                                             {Kind::centered, Dtype::bf16},    {Kind::sigmoid, Dtype::f32},  {Kind::dipole, Dtype::f32}};
  std::uint32_t seed = 0;
  for (const auto& [kind, dtype] : variants)
    for (std::int64_t width : {64, 128}) {
      const Scope scope(schedule(++seed));
      check_emulated(random_problem(kind, {1, 1, 66, 130, width, width}, seed % 2 == 0, dtype, 3), dtype, false);
    }
}

TEST_CASE("CUDA attention: scores of 1e4, all zero, negative scale and none") {
  for (int kind = 0; kind < kKindCount; ++kind)
    for (Dtype dtype : kDtypes) {
      Reference huge = random_problem(kind_at(kind), {1, 1, 20, 80, 16, 16}, false, dtype, 5);
      // Small integers times powers of two: every score is exact, up to 1e4.
      for (auto* t : {&huge.q, &huge.k, &huge.q2, &huge.k2})
        for (double& x : *t) x = std::clamp(std::round(x), -2.0, 2.0) * 32;
      if (kind_at(kind) == Kind::cog)  // no undecided sign: products with odd entries do not vanish by chance
        huge = random_problem(Kind::cog, {1, 1, 20, 80, 16, 16}, false, dtype, 5);
      check_emulated(huge, dtype);
      Reference zero = huge;
      std::fill(zero.q.begin(), zero.q.end(), 0.0);
      std::fill(zero.q2.begin(), zero.q2.end(), 0.0);
      check_emulated(zero, dtype);
      Reference negative = random_problem(kind_at(kind), {1, 1, 20, 80, 16, 16}, true, dtype, 6);
      negative.scale = -negative.scale;
      if (kind_at(kind) != Kind::softpick) check_emulated(negative, dtype);
      negative.scale = 0;
      check_emulated(negative, dtype);
    }
}

TEST_CASE("CUDA attention: results do not depend on the order of threads, and not on what else is in the batch") {
  for (Kind kind : {Kind::cog, Kind::sda_weighted, Kind::diff}) {
    const Reference problem = random_problem(kind, {1, 2, 70, 70, 64, 64}, false, Dtype::bf16, 9);
    std::vector<std::vector<char>> first;
    for (std::uint32_t seed : {0, 1, 2}) {
      const Scope scope(schedule(seed));
      const FusedRun run = emulate(problem, Dtype::bf16);
      if (seed == 0) first = run.bytes;
      CHECK(run.bytes == first);
    }
  }
}

TEST_CASE("CUDA attention: no keys, no queries") {
  for (int kind = 0; kind < kKindCount; ++kind)
    for (Dtype dtype : kDtypes)
      for (Sizes s : {Sizes{1, 2, 5, 0, 16, 16}, Sizes{1, 2, 0, 5, 16, 16}, Sizes{0, 2, 5, 5, 16, 16}}) {
        FusedRun run = emulate(random_problem(kind_at(kind), s, false, dtype, 1), dtype);
        for (const auto& [name, values] : results_of(run.result)) {
          INFO(describe(run.result, dtype) << " " << name);
          CHECK(max_abs(*values) == 0);
        }
      }
}

TEST_CASE("CUDA attention: no bank conflicts in the tensor-core kernels") {
  for (std::int64_t width : {64, 128})
    for (Kind kind : {Kind::cog, Kind::sda}) {
      const Scope scope({});
      emulate(random_problem(kind, {1, 1, 128, 128, width, width}, false, Dtype::bf16, 1), Dtype::bf16);
      for (const auto& [site, count] : scope.counters().conflicts_by_site) {
        INFO(site << ": " << count);
        CHECK(count == 0);
      }
      CHECK(scope.counters().ldmatrix > 0);
    }
}

TEST_CASE("CUDA attention: what it refuses, in one line") {
  AttentionParams p;
  p.B = p.H = p.L = p.Lk = 1, p.D = p.Dv = 8;
  p.dtype = Dtype::bf16;
  alignas(16) std::uint16_t row[16] = {};
  p.q = p.k = p.v = {row, 8, 8, 8};
  p.o = {row, 8, 8, 8};
  using Catch::Matchers::Contains;
  auto forward = [&] { attention_forward_cuda(p, nullptr, nullptr); };
  p.D = 12;
  CHECK_THROWS_WITH(forward(), Contains("multiples of 8"));
  p.D = 136;
  CHECK_THROWS_WITH(forward(), Contains("multiples of 8 from 8 to 128"));
  p.D = 8, p.k.data = row + 1;
  CHECK_THROWS_WITH(forward(), Contains("rows of k must begin at multiples of 16 bytes"));
  CHECK_FALSE(attention_cuda_takes(p.k, Dtype::bf16));
  CHECK(attention_cuda_takes(p.k, Dtype::f32));
  p.k.data = row, p.v.stride_l = 9;
  CHECK_THROWS_WITH(forward(), Contains("rows of v"));
  p.v.stride_l = 8, p.kind = Kind::dipole;
  CHECK_THROWS_WITH(forward(), Contains("v2 is null"));
  p.kind = Kind::sda_weighted;
  CHECK_THROWS_WITH(forward(), Contains("needs w_plus"));
  p.kind = Kind::diff, p.q2 = p.k2 = p.q, p.w_minus = reinterpret_cast<float*>(row);
  CHECK(attention_forward_cuda_workspace(p) > 0);
  CHECK_THROWS_WITH(forward(), Contains("workspace is null"));
  CHECK_THROWS_WITH(attention_backward_cuda(p, nullptr, nullptr), Contains("stats is null"));
}
