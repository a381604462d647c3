#include <torch/torch.h>

#include "attention/operator.h"

#include <ATen/autocast_mode.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <dlfcn.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "attention/operands.h"
#include "kernels/attention/cpu/attention_cpu.h"

using namespace uvit;
using namespace uvit::test;
using kernels::Kind;

namespace {

/// The first line of the c10::Error that `call` throws, "" where it throws none.
template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    return text.substr(0, text.find('\n'));
  }
  return "";
}

/// Packed operands of a kind, [B, L, S, H, D].
Operands packed_parts(Kind kind, const at::Tensor& qkv) {
  Operands operands(kind, Sizes{.H = qkv.size(3)}, 50, qkv.scalar_type());
  const auto part = [&](std::int64_t s) { return qkv.select(2, s).transpose(1, 2); };
  operands.q = part(0);
  operands.k = part(1);
  operands.v = part(2);
  if (has_second_value(kind)) operands.extras.v2 = part(3);
  return operands;
}

/// Peak of the bytes that ATen holds on the CPU above those at construction.
class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  bool memoryProfilingEnabled() const override { return true; }
  void reportMemoryUsage(void* /*pointer*/, std::int64_t size, std::size_t /*allocated*/, std::size_t /*reserved*/, c10::Device /*device*/) override {
    held_ += size;
    peak_ = std::max(peak_, held_);
  }
  std::int64_t peak() const { return peak_; }

 private:
  std::int64_t held_ = 0, peak_ = 0;
};

/// Bytes of the process that were ever resident at once since the last reset; -1 where the system does not say.
std::int64_t resident_peak(bool reset) {
  if (reset) {
    std::ofstream file("/proc/self/clear_refs");
    if (!(file << "5" << std::flush)) return -1;
  }
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return -1;
}

/// As many heads as the kernels ever make of few by cutting their queries, which costs memory of its own up to that number.
constexpr std::int64_t kMemoryBatch = 4, kMemoryHeads = 8, kMemoryDim = 8;

struct Peak {
  std::int64_t allocated = 0, resident = 0;
};

Peak peak_of_training_step(Kind kind, std::int64_t length, at::ScalarType dtype) {
  const at::Tensor qkv = seeded({kMemoryBatch, length, has_second_value(kind) ? 4 : 3, kMemoryHeads, kMemoryDim}, 1, dtype).set_requires_grad(true);
  const Operands operands(kind, Sizes{.H = kMemoryHeads}, 3, dtype);
  const auto meter = std::make_shared<MemoryMeter>();
  const std::int64_t before = resident_peak(true);
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
    const at::Tensor out = attention_packed(qkv, kernels::kind_name(kind), {}, false, operands.extras.w_plus, operands.extras.w_minus);
    out.backward(at::ones_like(out));
  }
  return {meter->peak(), before < 0 ? -1 : resident_peak(false) - before};
}

}  // namespace

TEST_CASE("every kind, fused: as near to float64 as plain operations of the same dtype, output and every gradient") {
  for (const Kind kind : all_kinds()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const Sizes& sizes : {Sizes{2, 3, 65, 65, 16, 16}, Sizes{1, 2, 31, 78, 24, 40}, Sizes{1, 2, 40, 17, 8, 8}, Sizes{1, 1, 1, 1, 8, 8}}) {
        for (const bool causal : {false, true}) {
          INFO(kernels::kind_name(kind) << " " << c10::toString(dtype) << " L " << sizes.L << " Lk " << sizes.Lk << (causal ? " causal" : ""));
          const char* name = kernels::kind_name(kind);
          Operands operands(kind, sizes, 1, dtype);
          const at::Tensor dout = seeded({sizes.B, sizes.H, sizes.L, sizes.Dv}, 20, dtype);
          Operands leaves = operands;
          for (auto& [unused, tensor] : leaves.all()) *tensor = tensor->detach().clone().set_requires_grad(true);
          const Results exact = run_attention(eager_attention, operands.leaves(at::kDouble), name, dout, {}, causal);
          const Results fused = run_attention(attention, leaves, name, dout, {}, causal);
          for (auto& [unused, tensor] : leaves.all()) tensor->mutable_grad() = at::Tensor();
          const Results plain = run_attention(eager_attention, leaves, name, dout, {}, causal);
          // The plain path computes bfloat16 in float32: the fused one rounds its weights, an error of 2^-8 of each term at most.
          const double rounding = dtype == at::kBFloat16 ? 0.02 : 2e-6;
          for (const auto& [result, reference] : exact) {
            const double plain_error = (plain.at(result).to(at::kDouble) - reference).abs().max().item<double>();
            check_tensor(result, fused.at(result), reference, 3 * plain_error + rounding * std::max(1.0, max_abs(reference)));
          }
        }
      }
    }
  }
}

TEST_CASE("packed and unpacked are the same numbers, and the packed gradient is one tensor of qkv's shape") {
  for (const Kind kind : all_kinds()) {
    if (has_second_scores(kind)) continue;
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      for (const bool causal : {false, true}) {
        INFO(kernels::kind_name(kind) << " " << c10::toString(dtype) << (causal ? " causal" : ""));
        // A slice of a wider tensor: rows are apart, and must be read in place all the same.
        const at::Tensor wide = seeded({2, 37, has_second_value(kind) ? 4 : 3, 3, 24}, 1, dtype).set_requires_grad(true);
        const at::Tensor qkv = wide.narrow(4, 0, 16);
        const Operands parts = packed_parts(kind, qkv);
        const at::Tensor packed = attention_packed(qkv, kernels::kind_name(kind), 0.3, causal, parts.extras.w_plus, parts.extras.w_minus);
        CHECK(packed.sizes() == at::IntArrayRef({2, 37, 48}));
        const at::Tensor dout = seeded({2, 37, 48}, 2, dtype);
        packed.backward(dout);
        const at::Tensor gradient = wide.grad().clone();
        wide.mutable_grad() = at::Tensor();
        const at::Tensor unpacked = attention(parts.q, parts.k, parts.v, kernels::kind_name(kind), 0.3, causal, parts.extras);
        unpacked.transpose(1, 2).flatten(2).backward(dout);
        CHECK(at::equal(packed, unpacked.transpose(1, 2).flatten(2)));
        CHECK(at::equal(gradient, wide.grad()));
      }
    }
  }
}

TEST_CASE("the result is a [B, H, L, Dv] view of [B, L, H, Dv] storage: fused, plain and without data") {
  const auto check = [](const at::TensorOptions& options) {
    const at::Tensor q = at::zeros({2, 3, 5, 8}, options), k = at::zeros({2, 3, 7, 8}, options), v = at::zeros({2, 3, 7, 16}, options);
    const at::Tensor out = attention(q, k, v, "cog");
    CHECK(out.sizes() == at::IntArrayRef({2, 3, 5, 16}));
    CHECK(out.transpose(1, 2).is_contiguous());
    CHECK(out.scalar_type() == q.scalar_type());
    CHECK(out.device() == q.device());
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    check(at::TensorOptions(dtype));
    check(at::TensorOptions(dtype).device(at::kMeta));
  }
  const at::Tensor qkv = at::zeros({2, 5, 3, 4, 8}, at::TensorOptions(at::kMeta));
  CHECK(attention_packed(qkv).sizes() == at::IntArrayRef({2, 5, 32}));
}

TEST_CASE("inputs of any strides, of no rows and of no keys") {
  const at::Tensor last_strided = seeded({2, 3, 8, 9}, 1, at::kFloat).transpose(2, 3), one = seeded({1, 1, 9, 8}, 2, at::kFloat).expand({2, 3, 9, 8});
  const at::Tensor expected = eager_attention(last_strided, one, one, "cog");
  check_tensor("strided", attention(last_strided, one, one, "cog"), expected, 1e-6);

  const at::Tensor q = seeded({1, 2, 4, 8}, 3, at::kFloat).set_requires_grad(true), none = at::zeros({1, 2, 0, 8}).set_requires_grad(true);
  const at::Tensor blind = attention(q, none, none, "softmax");
  blind.sum().backward();
  CHECK(blind.eq(0).all().item<bool>());
  CHECK(q.grad().eq(0).all().item<bool>());
  const at::Tensor k = seeded({1, 2, 4, 8}, 4, at::kFloat).set_requires_grad(true);
  attention(none, k, k, "cog").sum().backward();
  CHECK(k.grad().eq(0).all().item<bool>());
  CHECK(attention_packed(at::zeros({0, 5, 3, 2, 8})).sizes() == at::IntArrayRef({0, 5, 16}));
}

TEST_CASE("derivatives of second order: float64 has them, the fused kernels say that they have not") {
  const auto gradient = [](at::ScalarType dtype) {
    const at::Tensor q = seeded({1, 1, 4, 8}, 1, dtype).set_requires_grad(true), k = seeded({1, 1, 5, 8}, 2, dtype);
    return torch::autograd::grad({attention(q, k, k, "sda").square().sum()}, {q}, {}, true, true)[0].sum();
  };
  CHECK_NOTHROW(gradient(at::kDouble).backward());
  const at::Tensor single = gradient(at::kFloat);
  CHECK_THAT(message_of([&] { single.backward(); }), Catch::Contains("cannot be differentiated twice") && Catch::Contains("float64"));
}

TEST_CASE("under autocast operands of several dtypes are brought to its own, and float64 stays") {
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const at::Tensor q = seeded({1, 2, 9, 8}, 1, at::kFloat).set_requires_grad(true), k = seeded({1, 2, 9, 8}, 2, at::kBFloat16);
  const at::Tensor out = attention(q, k, k, "cog"), packed = attention_packed(seeded({1, 9, 3, 2, 8}, 3, at::kFloat)), wide = attention(
      k.to(at::kDouble), k.to(at::kDouble), k.to(at::kDouble), "cog");
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  CHECK(out.scalar_type() == at::kBFloat16);
  CHECK(packed.scalar_type() == at::kBFloat16);
  CHECK(wide.scalar_type() == at::kDouble);
  out.sum().backward();
  CHECK(q.grad().scalar_type() == at::kFloat);
}

TEST_CASE("bad arguments give an error that names them") {
  const at::Tensor x = at::zeros({2, 3, 4, 8}), w = at::ones({3});
  const auto message = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const char* kind = "softmax",
                          const AttentionExtras& extras = {}, std::optional<double> scale = {}) {
    return message_of([&] { attention(q, k, v, kind, scale, false, extras); });
  };
  CHECK_THAT(message(x, x, x, "sofmax"), Catch::Contains("'sofmax'") && Catch::Contains("did you mean 'softmax'"));
  CHECK_THAT(message(x[0], x, x), Catch::Contains("q must be [B, H, L, D]") && Catch::Contains("[3, 4, 8]"));
  CHECK_THAT(message(x, at::zeros({2, 3, 4, 16}), x), Catch::Contains("k must be") && Catch::Contains("[2, 3, 4, 16]"));
  CHECK_THAT(message(x, x, at::zeros({2, 3, 5, 8})), Catch::Contains("v must be") && Catch::Contains("[2, 3, 5, 8]"));
  CHECK_THAT(message(x, x, x.to(at::kDouble)), Catch::Contains("v is Double") && Catch::Contains("q is Float"));
  CHECK_THAT(message(x.to(at::kInt), x, x), Catch::Contains("q must have a floating dtype"));
  CHECK_THAT(message(x, x.to(at::kMeta), x), Catch::Contains("k is on meta"));
  CHECK_THAT(message(x, x, x, "softmax", {}, std::numeric_limits<double>::quiet_NaN()), Catch::Contains("scale"));
  CHECK_THAT(message(x, x, x, "cog", {.w_minus = w}), Catch::Contains("'cog' takes no w_minus"));
  CHECK_THAT(message(x, x, x, "softmax", {.v2 = x}), Catch::Contains("'softmax' takes no v2"));
  CHECK_THAT(message(x, x, x, "dipole", {.w_plus = w, .w_minus = w}), Catch::Contains("'dipole' needs v2"));
  CHECK_THAT(message(x, x, x, "diff", {.q2 = x, .w_minus = w}), Catch::Contains("'diff' needs k2"));
  CHECK_THAT(message(x, x, x, "sda_weighted", {.w_minus = w}), Catch::Contains("'sda_weighted' needs w_plus"));
  CHECK_THAT(message(x, x, x, "sda_weighted", {.w_plus = at::ones({2}), .w_minus = w}), Catch::Contains("w_plus must be [H]"));

  const auto packed = [](const at::Tensor& qkv, const char* kind) { return message_of([&] { attention_packed(qkv, kind); }); };
  CHECK_THAT(packed(x, "softmax"), Catch::Contains("qkv must be [B, L, S, H, D]"));
  CHECK_THAT(packed(at::zeros({2, 4, 4, 3, 8}), "cog"), Catch::Contains("[B, L, 3, H, D]") && Catch::Contains("[2, 4, 4, 3, 8]"));
  CHECK_THAT(packed(at::zeros({2, 4, 3, 3, 8}), "diff"), Catch::Contains("no packed form"));
}

TEST_CASE("what the fused kernels do not take runs plain operations, and says why") {
  CHECK(plain_path_reason(at::kCPU, at::kFloat, 64, 64).empty());
  CHECK(plain_path_reason(at::kCPU, at::kBFloat16, 8, 128).empty());
  CHECK_THAT(plain_path_reason(at::kCPU, at::kFloat, 10, 10), Catch::Contains("head_dim 10"));
  CHECK_THAT(plain_path_reason(at::kCPU, at::kFloat, 128, 136), Catch::Contains("value_dim 136"));
  CHECK_THAT(plain_path_reason(at::kCPU, at::kHalf, 64, 64), Catch::Contains("Half"));
  CHECK_THAT(plain_path_reason(at::kCPU, at::kDouble, 64, 64), Catch::Contains("Double"));
  const std::string gpu = plain_path_reason(at::kCUDA, at::kFloat, 64, 64);
  if (gpu.empty()) {  // a build with CUDA, whether there is a GPU or not
    CHECK(plain_path_reason(at::kCUDA, at::kHalf, 64, 128).empty());
    CHECK_THAT(plain_path_reason(at::kCUDA, at::kHalf, 10, 10), Catch::Contains("head_dim 10"));
    CHECK_THAT(plain_path_reason(at::kCUDA, at::kDouble, 64, 64), Catch::Contains("Double"));
  } else {
    CHECK_THAT(gpu, Catch::Contains("no CUDA kernels") || Catch::Contains("sm_"));
  }
  for (const std::int64_t width : {10, 136}) {
    const at::Tensor x = seeded({1, 2, 5, width}, 1, at::kFloat);
    check_tensor("plain", attention(x, x, x, "cog"), eager_attention(x, x, x, "cog"), 1e-6);
  }
}

TEST_CASE("every instruction set of this machine serves the operator") {
  const std::string chosen = kernels::attention_isa();
  const at::Tensor qkv = seeded({2, 67, 3, 2, 16}, 1, at::kFloat), expected = eager_attention_packed(qkv, "cog");
  for (const std::string& name : kernels::attention_isas_available()) {
    INFO(name);
    kernels::set_attention_isa(name);
    check_tensor("cog", attention_packed(qkv, "cog"), expected, 2e-6);
  }
  kernels::set_attention_isa(chosen);
}

TEST_CASE("the extra memory of forward and backward is linear in L") {
  for (const Kind kind : {Kind::cog, Kind::dipole}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      INFO(kernels::kind_name(kind) << " " << c10::toString(dtype));
      const Peak small = peak_of_training_step(kind, 1024, dtype), large = peak_of_training_step(kind, 4096, dtype);
      const std::int64_t weights = kMemoryBatch * kMemoryHeads * 4096 * 4096 * 4;  // one float a score
      INFO("allocated " << small.allocated << " and " << large.allocated << ", resident " << small.resident << " and " << large.resident);
      CHECK(small.allocated > 0);
      CHECK(large.allocated <= 4.05 * static_cast<double>(small.allocated));
      kernels::AttentionParams params;
      params.kind = kind;
      params.dtype = dtype == at::kFloat ? kernels::Dtype::f32 : kernels::Dtype::bf16;
      params.B = kMemoryBatch, params.H = kMemoryHeads, params.D = params.Dv = kMemoryDim;
      params.L = params.Lk = 1024;
      const kernels::AttentionMemory few = kernels::attention_memory(params, true);
      params.L = params.Lk = 4096;
      const kernels::AttentionMemory many = kernels::attention_memory(params, true);
      const std::size_t threads = 8;
      CHECK(threads * many.each_thread + many.shared <= 4.05 * static_cast<double>(threads * few.each_thread + few.shared));
      if (large.resident < 0) {
        WARN("this system does not let a process reset its peak of resident memory");
      } else {
        CHECK(large.resident < weights / 16);
      }
    }
  }
}

TEST_CASE("a process that has the operator already can load libuvit_ops.so too") {
  register_operators();
  void* library = ::dlopen(UVIT_OPS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  INFO(UVIT_OPS_LIBRARY);
  REQUIRE(library);
  const at::Tensor x = seeded({1, 2, 4, 8}, 1, at::kFloat);
  CHECK(attention(x, x, x, "cog").sizes() == x.sizes());
}
