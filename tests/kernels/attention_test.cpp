#include "tests/kernels/attention_case.h"

#include <mutex>

using namespace uvit::kernels;
using namespace uvit::test;

namespace {

constexpr Kind kFirstKind = Kind::softmax;
Kind kind_at(int i) { return static_cast<Kind>(static_cast<int>(kFirstKind) + i); }

std::string describe(const std::string& isa, const Reference& r, Dtype dtype) {
  return isa + " " + kind_name(r.kind) + (r.causal ? " causal" : "") + " " + dtype_name(dtype) + " L" + std::to_string(r.L) +
         " Lk" + std::to_string(r.Lk) + " D" + std::to_string(r.D) + " Dv" + std::to_string(r.Dv);
}

/// Every instruction set against double, by the error of the plain path.
void check_problem(const Reference& problem, Dtype dtype) {
  Reference exact = problem, plain = problem;
  exact.forward();
  exact.backward();
  PlainAttention(plain, dtype).run();
  with_each_isa([&](const std::string& isa) {
    FusedRun fused(problem, dtype);
    check_against_plain(describe(isa, problem, dtype), fused.result, exact, plain, dtype);
  });
}

void check_sizes(Sizes sizes, bool causal) {
  for (int kind = 0; kind < kKindCount; ++kind)
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) check_problem(random_problem(kind_at(kind), sizes, causal, dtype, 1), dtype);
}

/// Integers, so that every score is exact in any precision: scores of 1e4, all zero, ties, one dominant key, all negative.
Reference integer_problem(Kind kind, const std::string& edge) {
  const Sizes s{1, 2, 6, 19, 16, 16};
  Reference r = random_problem(kind == Kind::cog ? Kind::softmax : kind, s, false, Dtype::f32, 5);
  r.kind = kind;
  std::mt19937 generator(3);
  std::uniform_int_distribution<int> small(-2, 2);
  const bool negative = edge == "all negative", huge = edge == "huge";
  for (auto* t : {&r.q, &r.k, &r.q2, &r.k2})
    for (double& x : *t) x = small(generator);
  for (auto* t : {&r.v, &r.v2, &r.dout})
    for (double& x : *t) x = small(generator) + 0.5;
  for (std::size_t i = 0; i < r.q.size(); ++i) {
    if (edge == "zero") r.q[i] = 0;
    if (negative) r.q[i] = -1 - static_cast<double>(i % 3);
    if (huge) r.q[i] *= 64;
  }
  for (std::size_t i = 0; i < r.k.size(); ++i) {
    if (negative) r.k[i] = 1 + static_cast<double>(i % 2);
    if (huge) r.k[i] *= 32;
    if (edge == "ties") r.k[i] = r.k[i % 16];
    if (edge == "dominant" && i / 16 % 19 == 7) r.k[i] = 16 * r.q[i % 16];
  }
  return r;
}

/// `threads` threads that take ranges of `grain` items, the last ones first.
ParallelFor threaded(int threads, std::int64_t grain) {
  return [=](std::int64_t n, const std::function<void(std::int64_t, std::int64_t)>& body) {
    std::mutex mutex;
    std::int64_t left = n;
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; ++t)
      pool.emplace_back([&] {
        for (;;) {
          std::int64_t end;
          {
            const std::lock_guard lock(mutex);
            end = left;
            left = std::max<std::int64_t>(0, left - grain);
          }
          if (end <= 0) return;
          body(std::max<std::int64_t>(0, end - grain), end);
        }
      });
    for (std::thread& thread : pool) thread.join();
  };
}

}  // namespace

TEST_CASE("fused attention: lengths that break tiles") {
  for (std::int64_t length : {1, 3, 31, 64, 65, 78, 257}) check_sizes({1, 2, length, length, 16, 16}, false);
}

TEST_CASE("fused attention: head widths") {
  for (std::int64_t width : {8, 16, 24, 40, 64, 80, 128}) check_sizes({2, 1, 33, 50, width, width}, false);
  check_sizes({1, 1, 20, 37, 24, 48}, false);
  check_sizes({1, 1, 20, 37, 72, 8}, true);
}

TEST_CASE("fused attention: causal, keys other than queries, rows without keys") {
  check_sizes({1, 2, 65, 65, 32, 32}, true);
  check_sizes({1, 1, 31, 78, 16, 16}, true);
  check_sizes({2, 1, 78, 31, 16, 16}, true);
  check_sizes({1, 1, 1, 257, 16, 16}, false);
  check_sizes({1, 1, 257, 1, 16, 16}, false);
}

TEST_CASE("fused attention: rows and columns beyond one tile, splits of a head") {
  for (Kind kind : {Kind::softmax, Kind::cog, Kind::diff})
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) check_problem(random_problem(kind, {1, 1, 1025, 1025, 16, 16}, false, dtype, 2), dtype);
  check_sizes({1, 1, 21, 1300, 16, 16}, false);
  check_sizes({1, 1, 20, 1300, 8, 8}, true);
  check_sizes({1, 1, 600, 40, 8, 8}, true);
}

TEST_CASE("fused attention: extreme scores") {
  for (const char* edge : {"huge", "zero", "ties", "dominant", "all negative"})
    for (int kind = 0; kind < kKindCount; ++kind)
      for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        INFO(edge);
        check_problem(integer_problem(kind_at(kind), edge), dtype);
      }
}

TEST_CASE("fused attention: a row that sees no key is zero and its statistics are -inf") {
  for (int kind = 0; kind < kKindCount; ++kind)
    with_each_isa([&](const std::string& isa) {
      const Sizes s{1, 1, 5, 3, 8, 8};
      FusedRun run(random_problem(kind_at(kind), s, true, Dtype::f32, 1), Dtype::f32);
      INFO(isa << " " << kind_name(kind_at(kind)));
      for (std::size_t i = 0; i < 2 * 8; ++i) CHECK((run.result.o[i] == 0 && run.result.dq[i] == 0));
      for (std::size_t n = 0; n < run.stats.size(); n += 10)
        for (std::size_t row : {0, 1}) CHECK((std::isinf(run.stats[n + row]) && run.stats[n + row] < 0 && run.stats[n + 5 + row] == 0));
    });
}

TEST_CASE("fused attention: a NaN in a query reaches its output row and no other") {
  for (int kind = 0; kind < kKindCount; ++kind)
    with_each_isa([&](const std::string& isa) {
      Reference problem =
          random_problem(kind == static_cast<int>(Kind::cog) ? Kind::softmax : kind_at(kind), {1, 1, 9, 20, 16, 16}, false, Dtype::f32, 1);
      problem.kind = kind_at(kind);
      problem.q[3 * 16 + 5] = std::nan("");
      const FusedRun run(problem, Dtype::f32);
      INFO(isa << " " << kind_name(problem.kind));
      for (std::size_t i = 0; i < run.result.o.size(); ++i) CHECK(std::isnan(run.result.o[i]) == (i / 16 == 3));
    });
}

TEST_CASE("fused attention: the same bits for any number of threads", "[threads]") {
  for (int kind = 0; kind < kKindCount; ++kind)
    for (Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (const Sizes& sizes : {Sizes{2, 3, 65, 70, 16, 16}, Sizes{1, 1, 700, 90, 8, 8}}) {
        const Reference problem = random_problem(kind_at(kind), sizes, false, dtype, 4);
        with_each_isa([&](const std::string& isa) {
          INFO(describe(isa, problem, dtype));
          const FusedRun one(problem, dtype);
          for (const auto& [threads, grain] : {std::pair(2, 1), std::pair(3, 2)})
            CHECK(FusedRun(problem, dtype, threaded(threads, grain)).bytes == one.bytes);
        });
      }
}

TEST_CASE("fused attention: empty batches, empty key sets and empty query sets") {
  for (int kind = 0; kind < kKindCount; ++kind)
    with_each_isa([&](const std::string&) {
      for (const Sizes& s : {Sizes{0, 2, 4, 4, 8, 8}, Sizes{1, 2, 0, 4, 8, 8}, Sizes{1, 2, 4, 0, 8, 8}}) {
        Reference problem = random_problem(kind_at(kind), s, false, Dtype::f32, 1), exact = problem;
        exact.forward();
        exact.backward();
        FusedRun run(problem, Dtype::f32);
        const auto fused = results_of(run.result), reference = results_of(exact);
        for (std::size_t n = 0; n < fused.size(); ++n) check_close(fused[n].first, *fused[n].second, *reference[n].second, 0);
      }
    });
}

TEST_CASE("fused attention: what is not supported is refused by name") {
  CHECK(attention_supported(8, 128));
  CHECK_FALSE(attention_supported(12, 16));
  CHECK_FALSE(attention_supported(16, 136));
  CHECK_FALSE(attention_supported(0, 8));
  AttentionParams p;
  p.B = p.H = p.L = p.Lk = 1, p.D = p.Dv = 12;
  CHECK_THROWS_WITH(attention_forward(p), Catch::Contains("multiples of 8"));
  p.D = p.Dv = 8;
  CHECK_THROWS_WITH(attention_forward(p), Catch::Contains("q or o is null"));
  float row[8] = {};
  p.q = p.k = p.v = {row, 8, 8, 8};
  p.o = {row, 8, 8, 8};
  p.kind = Kind::dipole;
  CHECK_THROWS_WITH(attention_forward(p), Catch::Contains("v2"));
  p.kind = Kind::diff;
  CHECK_THROWS_WITH(attention_forward(p), Catch::Contains("q2 and k2"));
  p.kind = Kind::sda_weighted;
  CHECK_THROWS_WITH(attention_forward(p), Catch::Contains("w_plus"));
  p.kind = Kind::softmax;
  CHECK_THROWS_WITH(attention_backward(p), Catch::Contains("dout"));
}

TEST_CASE("instruction sets: the best is the default, an unknown one is refused with the names there are") {
  const std::vector<std::string> names = attention_isas_available();
  CHECK(names.front() == "portable");
  const std::string before = attention_isa();
  for (const std::string& name : names) {
    set_attention_isa(name);
    CHECK(attention_isa() == name);
  }
  CHECK_THROWS_WITH(set_attention_isa("avx1024"), Catch::Contains("unknown instruction set 'avx1024'") && Catch::Contains("portable"));
  set_attention_isa(before);
}
