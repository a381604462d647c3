#include "kernels/attention/cpu/attention_cpu.h"

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "kernels/attention/cpu/plan.h"

namespace uvit::kernels {
namespace {

struct Isa {
  const KernelTable* table;
  bool (*runs_here)();
};

#ifdef UVIT_X86_KERNELS
bool has_avx512_bf16() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

/// From the plainest to the best.
std::vector<Isa>& isas() {
  static std::vector<Isa> all = {
      {&kPortableKernels, [] { return true; }},
#ifdef UVIT_X86_KERNELS
      {&kAvx2Kernels, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
      {&kAvx512Kernels,
       [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl");
       }},
      {&kAvx512Bf16Kernels, has_avx512_bf16},
      {&kAmxBf16Kernels, [] { return has_avx512_bf16() && amx_bf16_permitted(); }},
#endif
  };
  return all;
}

std::string available() {
  std::string names;
  for (const std::string& name : attention_isas_available()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

const KernelTable* find_isa(const std::string& name) {
  for (const Isa& isa : isas())
    if (isa.table->name == name) {
      if (isa.runs_here()) return isa.table;
      throw std::invalid_argument("UVIT_CPU_ISA: this machine has no " + name + "; it runs " + available());
    }
  throw std::invalid_argument("UVIT_CPU_ISA: unknown instruction set '" + name + "'; this machine runs " + available());
}

const KernelTable* default_isa() {
  const char* named = std::getenv("UVIT_CPU_ISA");
  if (named && *named) return find_isa(named);
  const KernelTable* best = nullptr;
  for (const Isa& isa : isas())
    if (isa.runs_here()) best = isa.table;
  return best;
}

std::atomic<const KernelTable*> selected{nullptr};

const KernelTable& kernels() {
  const KernelTable* table = selected.load(std::memory_order_acquire);
  if (!table) {
    table = default_isa();
    selected.store(table, std::memory_order_release);
  }
  return *table;
}

struct AlignedDelete {
  std::align_val_t alignment{64};
  void operator()(float* p) const { ::operator delete (p, alignment); }
};
using Floats = std::unique_ptr<float, AlignedDelete>;

Floats make_floats(std::size_t n, std::size_t alignment = 64) {
  const std::align_val_t align{alignment};
  return Floats(static_cast<float*>(::operator new (n * sizeof(float) + 64, align)), AlignedDelete{align});
}

/// Scratch in huge pages where it is large and the system has them: backward walks down columns of scores, every row in another page, and at 4,097
/// keys ordinary pages cost it a tenth of its time. Not for buffers of one call: the system may need longer to find such pages than the call lasts.
Floats make_scratch(std::size_t n) {
  constexpr std::size_t kHugePage = std::size_t{1} << 21;
  const std::size_t bytes = n * sizeof(float) / kHugePage * kHugePage;
  Floats floats = make_floats(n, bytes > 0 ? kHugePage : 64);
#ifdef MADV_HUGEPAGE
  if (bytes > 0) ::madvise(floats.get(), bytes, MADV_HUGEPAGE);  // a hint: without it the results are the same
#endif
  return floats;
}

/// Scratch of a thread. It stays for the next call (fresh pages cost more than a short attention), as long as it is not large.
class ThreadScratch {
 public:
  explicit ThreadScratch(std::size_t floats) {
    if (kept.size < floats) {
      kept.memory.reset();
      kept.memory = make_scratch(floats);
      kept.size = floats;
    }
  }
  ~ThreadScratch() {
    constexpr std::size_t kKeptFloats = std::size_t{4} << 20;
    if (kept.size > kKeptFloats) kept = {};
  }
  float* data() const { return kept.memory.get(); }

 private:
  struct Kept {
    Floats memory;
    std::size_t size = 0;
  };
  static thread_local Kept kept;
};
thread_local ThreadScratch::Kept ThreadScratch::kept;

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(std::string("attention: ") + message);
}

void check_inputs(const AttentionParams& p) {
  require(p.B >= 0 && p.H >= 0 && p.L >= 0 && p.Lk >= 0, "B, H, L and Lk must not be negative");
  require(p.dtype != Dtype::f16, "float16 is not supported on the CPU; use float32 or bfloat16");
  require(attention_supported(p.D, p.Dv), "D and Dv must be multiples of 8 from 8 to 128");
  if (p.B * p.H * p.L == 0) return;
  require(p.q.data && p.o.data, "q or o is null");
  require(p.Lk == 0 || (p.k.data && p.v.data), "k or v is null");
  require(p.Lk == 0 || !has_second_value(p.kind) || p.v2.data, "this kind needs v2");
  require(!has_second_scores(p.kind) || (p.q2.data && (p.Lk == 0 || p.k2.data)), "this kind needs q2 and k2");
  require(!has_w_plus(p.kind) || p.w_plus, "this kind needs w_plus");
  require(!has_w_minus(p.kind) || p.w_minus, "this kind needs w_minus");
}

void check_gradients(const AttentionParams& p) {
  if (p.B * p.H == 0) return;
  require(p.L == 0 || (p.stats && p.dout.data && p.dq.data), "stats, dout or dq is null");
  require(p.Lk == 0 || (p.dk.data && p.dv.data), "dk or dv is null");
  require(p.Lk == 0 || !has_second_value(p.kind) || p.dv2.data, "this kind needs dv2");
  require(!has_second_scores(p.kind) || ((p.L == 0 || p.dq2.data) && (p.Lk == 0 || p.dk2.data)), "this kind needs dq2 and dk2");
  require(!has_w_plus(p.kind) || p.dw_plus, "this kind needs dw_plus");
  require(!has_w_minus(p.kind) || p.dw_minus, "this kind needs dw_minus");
}

}  // namespace

void serial_for(std::int64_t n, const std::function<void(std::int64_t begin, std::int64_t end)>& body) {
  if (n > 0) body(0, n);
}

bool attention_supported(std::int64_t head_dim, std::int64_t value_dim) {
  auto fits = [](std::int64_t d) { return d >= 8 && d <= 128 && d % 8 == 0; };
  return fits(head_dim) && fits(value_dim);
}

void attention_forward(const AttentionParams& params, const ParallelFor& parallel_for) {
  check_inputs(params);
  if (params.B * params.H * params.L == 0) return;
  const KernelTable& isa = kernels();
  const Plan plan = isa.forward_plan(params);
  const std::size_t floats = isa.forward_scratch(params, plan);
  parallel_for(plan.items, [&](std::int64_t begin, std::int64_t end) {
    const ThreadScratch scratch(floats);
    for (std::int64_t item = begin; item < end; ++item) isa.forward(params, plan, item, scratch.data());
  });
}

void attention_backward(const AttentionParams& params, const ParallelFor& parallel_for) {
  check_inputs(params);
  check_gradients(params);
  const std::int64_t heads = params.B * params.H;
  if (heads == 0) return;
  const KernelTable& isa = kernels();
  const Plan plan = isa.backward_plan(params);
  const std::size_t sums_floats = isa.key_sums(params, plan), split_floats = plan.splits * sums_floats;
  const std::size_t scratch_floats = isa.backward_scratch(params, plan);
  std::vector<double> weight_sums(static_cast<std::size_t>(2 * plan.items));
  auto run_item = [&](std::int64_t item, float* scratch, float* sums) {
    isa.backward(params, plan, item, scratch, sums, &weight_sums[static_cast<std::size_t>(2 * item)]);
  };
  if (plan.splits == 1) {
    parallel_for(plan.items, [&](std::int64_t begin, std::int64_t end) {
      const ThreadScratch scratch(scratch_floats + sums_floats);
      for (std::int64_t item = begin; item < end; ++item) {
        run_item(item, scratch.data() + sums_floats, scratch.data());
        isa.finish(params, plan, item, scratch.data());
      }
    });
  } else {
    const Floats all_sums = make_floats(static_cast<std::size_t>(heads) * split_floats);
    parallel_for(plan.items, [&](std::int64_t begin, std::int64_t end) {
      const ThreadScratch scratch(scratch_floats);
      for (std::int64_t item = begin; item < end; ++item)
        run_item(item, scratch.data(), all_sums.get() + static_cast<std::size_t>(item) * sums_floats);
    });
    parallel_for(plan.items, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item)
        isa.finish(params, plan, item, all_sums.get() + static_cast<std::size_t>(item / plan.splits) * split_floats);
    });
  }
  for (int n = 0; n < 2; ++n) {
    float* to = n == 0 ? (has_w_plus(params.kind) ? params.dw_plus : nullptr) : has_w_minus(params.kind) ? params.dw_minus : nullptr;
    for (std::int64_t h = 0; to && h < params.H; ++h) {
      double sum = 0;
      for (std::int64_t item = 0; item < plan.items; ++item)
        if (item / plan.splits % params.H == h) sum += weight_sums[static_cast<std::size_t>(2 * item + n)];
      to[h] = static_cast<float>(sum);
    }
  }
}

AttentionMemory attention_memory(const AttentionParams& params, bool backward) {
  const KernelTable& isa = kernels();
  if (params.B * params.H * params.L == 0) return {};
  if (!backward) return {isa.forward_scratch(params, isa.forward_plan(params)) * sizeof(float), 0};
  const Plan plan = isa.backward_plan(params);
  const std::size_t scratch = isa.backward_scratch(params, plan) * sizeof(float), sums = isa.key_sums(params, plan) * sizeof(float);
  if (plan.splits == 1) return {scratch + sums, 0};
  return {scratch, static_cast<std::size_t>(plan.items) * sums};
}

std::string attention_isa() { return kernels().name; }

std::vector<std::string> attention_isas_available() {
  std::vector<std::string> names;
  for (const Isa& isa : isas())
    if (isa.runs_here()) names.emplace_back(isa.table->name);
  return names;
}

void add_attention_isa(const KernelTable& table, bool (*runs_here)()) { isas().insert(isas().begin() + 1, {&table, runs_here}); }

void set_attention_isa(const std::string& name) { selected.store(find_isa(name), std::memory_order_release); }

}  // namespace uvit::kernels
