// Fused attention against LibTorch, in one process: checks, warms up, then times the contestants in turn, round by round, so that a change of clock
// or of load meets all of them alike. Ratios are medians of the rounds' ratios. One thread: process CPU time; more: wall time.
#include <torch/torch.h>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/attention/cpu/attention_cpu.h"
#ifdef UVIT_HAS_CUDA
#include "attention_cuda.h"
#endif

namespace {

using namespace uvit::kernels;
using at::Tensor;

struct Shape {
  std::int64_t B, H, L, D;
};

double now() {
  timespec t{};
  clock_gettime(at::get_num_threads() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void parallel(std::int64_t n, const std::function<void(std::int64_t, std::int64_t)>& body) { at::parallel_for(0, n, 1, body); }

/// One problem: packed qkv [B, L, S, H, D] with S = 3, or 6 for kinds with second operands, as a model holds it.
struct Problem {
  Kind kind;
  Shape shape;
  std::string name;
  Tensor packed, out, dout, dpacked, stats, w, dw;
  AttentionParams params;

  Problem(Kind k, Shape s, at::ScalarType dtype, const Tensor& source, const Tensor& grad, bool paired = false)
      : kind(k), shape(s), name(paired ? "differential" : kind_name(k)) {
    const std::int64_t slots = !paired && (has_second_value(k) || has_second_scores(k)) ? 6 : 3;
    packed = source.slice(2, 0, slots).contiguous().to(dtype);
    dout = grad.to(dtype);
    out = at::empty_like(dout);
    dpacked = at::empty_like(packed);
    stats = at::empty({stats_per_row(k), s.B, s.H, s.L}, at::kFloat);
    w = at::full({2, s.H}, 0.7f);
    dw = at::empty_like(w);
    params.kind = k;
    params.dtype = dtype == at::kFloat ? Dtype::f32 : Dtype::bf16;
    params.B = s.B, params.H = s.H, params.L = params.Lk = s.L, params.D = params.Dv = s.D;
    params.scale = 1 / std::sqrt(static_cast<float>(s.D));
    auto slot = [&](const Tensor& t, std::int64_t n) {
      const Tensor one = t.select(2, n);
      return MutableView{one.data_ptr(), one.stride(0), one.stride(2), one.stride(1)};
    };
    auto input = [&](std::int64_t n) {
      const MutableView v = slot(packed, n);
      return View{v.data, v.stride_b, v.stride_h, v.stride_l};
    };
    params.q = input(0), params.k = input(1), params.v = input(2);
    params.dq = slot(dpacked, 0), params.dk = slot(dpacked, 1), params.dv = slot(dpacked, 2);
    if (slots == 6) {
      params.q2 = input(3), params.k2 = input(4), params.v2 = input(5);
      params.dq2 = slot(dpacked, 3), params.dk2 = slot(dpacked, 4), params.dv2 = slot(dpacked, 5);
    }
    params.o = {out.data_ptr(), out.stride(0), out.stride(2), out.stride(1)};
    params.dout = {dout.data_ptr(), dout.stride(0), dout.stride(2), dout.stride(1)};
    params.stats = stats.data_ptr<float>();
    params.w_plus = w.data_ptr<float>(), params.w_minus = params.w_plus + s.H;
    params.dw_plus = dw.data_ptr<float>(), params.dw_minus = params.dw_plus + s.H;
    if (paired) pair_heads();
  }
  /// Kind diff as a model's `differential` calls it: heads in pairs, q2 and k2 are the second head of a pair, its values are both heads' side by side.
  void pair_heads() {
    const std::int64_t bytes = params.D * (params.dtype == Dtype::f32 ? 4 : 2);
    auto second = [&](auto& view) {
      view.stride_h *= 2;
      auto next = view;
      next.data = const_cast<char*>(static_cast<const char*>(view.data)) + bytes;
      return next;
    };
    params.q2 = second(params.q), params.k2 = second(params.k), params.dq2 = second(params.dq), params.dk2 = second(params.dk);
    second(params.v), second(params.o), second(params.dout), second(params.dv);
    params.H /= 2, params.Dv *= 2;
  }
  void forward() { attention_forward(params, parallel); }
  void backward() { attention_backward(params, parallel); }
};

Tensor heads(const Tensor& packed, std::int64_t slot) { return packed.select(2, slot).transpose(1, 2); }  // [B, H, L, D]

Tensor weigh(const Tensor& q, const Tensor& k, const Tensor& v, bool cog) {
  const Tensor s = at::matmul(q, k.transpose(-2, -1)) * (1 / std::sqrt(static_cast<double>(q.size(-1))));
  return at::matmul(cog ? at::sign(s) * at::softmax(at::abs(s), -1) : at::softmax(s, -1), v);
}

Tensor plain(const Tensor& packed, bool cog) { return weigh(heads(packed, 0), heads(packed, 1), heads(packed, 2), cog).transpose(1, 2); }

/// One contestant: forward, and forward + backward, of the same packed operands.
struct Contestant {
  std::string name;
  std::function<void()> forward, both;
  std::vector<double> forward_s, both_s;
};

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x.size() % 2 ? x[x.size() / 2] : (x[x.size() / 2 - 1] + x[x.size() / 2]) / 2;
}

/// Half the distance between the quartiles, relative to the median.
double spread(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return (x[x.size() * 3 / 4] - x[x.size() / 4]) / 2 / median(x);
}

double timed(const std::function<void()>& f, int calls) {
  const double start = now();
  for (int i = 0; i < calls; ++i) f();
  return (now() - start) / calls;
}

/// Largest error of the fused result against double, over that of the plain path in the same dtype.
double error_share(Problem& problem, bool cog) {
  problem.forward();
  problem.backward();
  auto grads = [&](at::ScalarType dtype) {
    Tensor leaf = problem.packed.detach().to(dtype).requires_grad_();
    Tensor out = plain(leaf, cog);
    out.backward(problem.dout.to(dtype));
    return std::pair(out.detach(), leaf.grad());
  };
  const auto [exact, exact_grad] = grads(at::kDouble);
  const auto [rough, rough_grad] = grads(problem.packed.scalar_type());
  auto error = [](const Tensor& a, const Tensor& b) { return (a.to(at::kDouble) - b).abs().max().item<double>(); };
  const double forward = error(problem.out, exact) / (2 * error(rough, exact)),
               backward = error(problem.dpacked, exact_grad) / (3 * error(rough_grad, exact_grad));
  return std::max(forward, backward);
}

struct Options {
  int rounds = 15, threads = 2;
  double seconds = 0.02;
  std::string dtype, only, isa;
  bool all_kinds = false, baselines = true;
};

Contestant fused(Problem& problem) {
  return {problem.name, [&problem] { problem.forward(); }, [&problem] { problem.forward(), problem.backward(); }, {}, {}};
}

std::vector<Contestant> libtorch(const Problem& problem) {
  const Tensor q = heads(problem.packed, 0), k = heads(problem.packed, 1), v = heads(problem.packed, 2), dout = problem.dout.transpose(1, 2);
  auto flash = [q, k, v] { return at::_scaled_dot_product_flash_attention_for_cpu(q, k, v); };
  auto flash_both = [=] {
    const auto [out, lse] = flash();
    at::_scaled_dot_product_flash_attention_for_cpu_backward(dout, q, k, v, out, lse, 0.0, false);
  };
  auto with_autograd = [q, k, v, dout](auto forward) {
    return [=] {
      std::vector<Tensor> leaves = {q.detach().requires_grad_(), k.detach().requires_grad_(), v.detach().requires_grad_()};
      torch::autograd::grad({forward(leaves[0], leaves[1], leaves[2])}, leaves, {dout});
    };
  };
  auto math = [](const Tensor& a, const Tensor& b, const Tensor& c) { return std::get<0>(at::_scaled_dot_product_attention_math(a, b, c)); };
  auto eager = [](bool cog) { return [cog](const Tensor& a, const Tensor& b, const Tensor& c) { return weigh(a, b, c, cog); }; };
  return {{"SDPA flash", flash, flash_both, {}, {}},
          {"SDPA math",
           [=] {
             at::NoGradGuard guard;
             math(q, k, v);
           },
           with_autograd(math),
           {},
           {}},
          {"plain softmax",
           [=] {
             at::NoGradGuard guard;
             eager(false)(q, k, v);
           },
           with_autograd(eager(false)),
           {},
           {}},
          {"eager cog",
           [=] {
             at::NoGradGuard guard;
             eager(true)(q, k, v);
           },
           with_autograd(eager(true)),
           {},
           {}}};
}

double gemm_peak(at::ScalarType dtype) {
  constexpr std::int64_t n = 1024;
  const Tensor a = at::randn({n, n}).to(dtype), b = at::randn({n, n}).to(dtype);
  double best = 1e9;
  for (int i = 0; i < 8; ++i) best = std::min(best, timed([&] { at::mm(a, b); }, 1));
  return 2.0 * n * n * n / best * 1e-9;
}

void report(const std::vector<Contestant>& all, bool both, double flop, double peak) {
  auto seconds = [&](const Contestant& c) -> const std::vector<double>& { return both ? c.both_s : c.forward_s; };
  auto find = [&](const std::string& name) -> const Contestant* {
    for (const Contestant& c : all)
      if (c.name == name) return &c;
    return nullptr;
  };
  const Contestant *flash = find("SDPA flash"), *cog = find("eager cog"), *best = flash;
  auto ratio = [&](const Contestant* a, const Contestant& b) {
    std::vector<double> r;
    if (!a) return std::string("-");
    for (std::size_t i = 0; i < seconds(b).size(); ++i) r.push_back(seconds(*a)[i] / seconds(b)[i]);
    return fmt::format("{:.2f}", median(r));
  };
  for (const char* other : {"SDPA math", "plain softmax"})
    if (const Contestant* c = find(other); c && median(seconds(*c)) < median(seconds(*best))) best = c;
  for (const Contestant& c : all) {
    const double ms = median(seconds(c)) * 1e3, rate = flop / median(seconds(c)) * 1e-9;
    fmt::print("{:>8} {:<13} {:>9.3f} {:>5.1f} {:>8.0f} {:>6.0f} {:>8} {:>8} {:>8} {:>8}\n", both ? "fwd+bwd" : "fwd", c.name, ms,
               100 * spread(seconds(c)), rate, 100 * rate / peak, ratio(flash, c), ratio(best, c), ratio(cog, c), ratio(&all[0], c));
  }
}

void run_shape(Shape s, at::ScalarType dtype, const Options& options, double peak) {
  const Tensor source = at::randn({s.B, s.L, 6, s.H, s.D}), grad = at::randn({s.B, s.L, s.H, s.D});
  std::vector<Kind> kinds = {Kind::softmax, Kind::cog};
  if (options.all_kinds) {
    kinds.clear();
    for (int k = 0; k < kKindCount; ++k) kinds.push_back(static_cast<Kind>(k));
  }
  std::vector<Problem> problems;
  problems.reserve(kinds.size() + 1);
  for (Kind kind : kinds) problems.emplace_back(kind, s, dtype, source, grad);
  if (options.all_kinds && s.H % 2 == 0 && 2 * s.D <= 128) problems.emplace_back(Kind::diff, s, dtype, source, grad, true);
  fmt::print("\n({}, {}, {}, {}) {}", s.B, s.H, s.L, s.D, dtype == at::kFloat ? "fp32" : "bf16");
  if (s.B * s.H * s.L * s.L < 100'000'000) {
    for (int i = 0; i < 2; ++i) {
      const double share = error_share(problems[i], i == 1);
      fmt::print(", {} error {:.0f} % of budget", kind_name(kinds[i]), 100 * share);
      // Signs of scores that float32 leaves undecided may differ from the plain path's: that error is bounded in tests/kernels, not here.
      if (share > 1 && i == 0) throw std::runtime_error("the fused result is wrong");
    }
  }
  fmt::print("\n{:>8} {:<13} {:>9} {:>5} {:>8} {:>6} {:>8} {:>8} {:>8} {:>8}\n", "pass", "kind", "ms", "+-%", "GF/s", "% mm", "x flash", "x best",
             "x eager", "x own");
  std::vector<Contestant> all;
  for (Problem& p : problems) all.push_back(fused(p));
  if (options.baselines)
    for (Contestant& c : libtorch(problems[0])) all.push_back(std::move(c));
  std::vector<std::pair<int, int>> calls;
  for (Contestant& c : all) {
    c.forward(), c.both();
    auto fill = [&](const std::function<void()>& f) { return std::max(1, static_cast<int>(options.seconds / timed(f, 1))); };
    calls.emplace_back(fill(c.forward), fill(c.both));
  }
  for (int round = 0; round < options.rounds; ++round)
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i].forward_s.push_back(timed(all[i].forward, calls[i].first));
      all[i].both_s.push_back(timed(all[i].both, calls[i].second));
    }
  const double flop = 4.0 * static_cast<double>(s.B * s.H * s.L * s.L * s.D);
  report(all, false, flop, peak);
  report(all, true, 3.5 * flop, peak);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Fused attention against LibTorch's SDPA and eager cog. FLOP: 4 B H L^2 D forward, 2.5 times that backward."};
  std::string device = "cpu";
  app.add_option("--device", device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}))->capture_default_str();
  app.add_option("--rounds", options.rounds, "Rounds, each timing every contestant once")->capture_default_str();
  app.add_option("--seconds", options.seconds, "Shortest time of one measurement")->capture_default_str();
  app.add_option("--threads", options.threads, "Threads; 1 measures process CPU time, which other load does not lengthen")->capture_default_str();
  app.add_option("--dtype", options.dtype, "fp32 or bf16, on a GPU fp16 too; default bf16 and fp32, on a GPU the 16-bit ones");
  app.add_option("--shape", options.only, "Only the shape with this many queries, for example 257");
  app.add_option("--isa", options.isa, "Instruction set, as UVIT_CPU_ISA");
  app.add_flag("--all-kinds", options.all_kinds, "Every kind, not softmax and cog alone");
  app.add_flag("!--no-baselines", options.baselines, "Leave LibTorch out");
  CLI11_PARSE(app, argc, argv);
  try {
    if (device == "cuda") {
#ifdef UVIT_HAS_CUDA
      run_cuda_bench({options.rounds, options.seconds, options.dtype, options.only, options.baselines});
      return 0;
#else
      throw std::runtime_error("this build has no CUDA (configure with -DWITH_CUDA=ON)");
#endif
    }
    at::set_num_threads(options.threads);
    at::manual_seed(0);
    if (!options.isa.empty()) set_attention_isa(options.isa);
    fmt::print("{}, {} thread(s), {}; LibTorch {} {}\n", attention_isa(), options.threads, options.threads == 1 ? "CPU time" : "wall time",
               TORCH_VERSION, at::get_cpu_capability());
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      if (!options.dtype.empty() && options.dtype != (dtype == at::kFloat ? "fp32" : "bf16")) continue;
      const double peak = gemm_peak(dtype);
      fmt::print("\nat::mm {} 1024^3: {:.0f} GF/s\n", dtype == at::kFloat ? "fp32" : "bf16", peak);
      for (const Shape shape : {Shape{8, 8, 257, 64}, Shape{2, 8, 1025, 64}, Shape{1, 16, 4097, 64}, Shape{128, 3, 51, 64}})
        if (options.only.empty() || options.only == std::to_string(shape.L)) run_shape(shape, dtype, options, peak);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_attention: {}\n", error.what());
    return 1;
  }
  return 0;
}
