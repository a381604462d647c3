// Bytes that the kernels really allocate: operator new of this program counts.
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/kernels/attention_case.h"

using namespace uvit::kernels;
using namespace uvit::test;

namespace {

std::atomic<std::int64_t> allocated_bytes{0}, peak_bytes{0};

/// The size is kept before the block, a whole alignment away.
void* try_allocate(std::size_t size, std::size_t alignment) noexcept {
  void* block = std::aligned_alloc(alignment, (size + 2 * alignment - 1) / alignment * alignment);
  if (!block) return nullptr;
  *static_cast<std::size_t*>(block) = size;
  const std::int64_t now = allocated_bytes += static_cast<std::int64_t>(size);
  for (std::int64_t peak = peak_bytes; peak < now && !peak_bytes.compare_exchange_weak(peak, now);) {
  }
  return static_cast<char*>(block) + alignment;
}

void* allocate(std::size_t size, std::size_t alignment) {
  void* memory = try_allocate(size, alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

void release(void* memory, std::size_t alignment) {
  if (!memory) return;
  char* block = static_cast<char*>(memory) - alignment;
  allocated_bytes -= static_cast<std::int64_t>(*reinterpret_cast<std::size_t*>(block));
  std::free(block);
}

constexpr std::size_t kPlainAlignment = 16;

}  // namespace

void* operator new(std::size_t size) { return allocate(size, kPlainAlignment); }
void* operator new[](std::size_t size) { return allocate(size, kPlainAlignment); }
void* operator new(std::size_t size, std::align_val_t alignment) { return allocate(size, static_cast<std::size_t>(alignment)); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return allocate(size, static_cast<std::size_t>(alignment)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return try_allocate(size, kPlainAlignment); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return try_allocate(size, kPlainAlignment); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { release(memory, kPlainAlignment); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { release(memory, kPlainAlignment); }
void operator delete(void* memory) noexcept { release(memory, kPlainAlignment); }
void operator delete[](void* memory) noexcept { release(memory, kPlainAlignment); }
void operator delete(void* memory, std::size_t) noexcept { release(memory, kPlainAlignment); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory, kPlainAlignment); }
void operator delete(void* memory, std::align_val_t alignment) noexcept { release(memory, static_cast<std::size_t>(alignment)); }
void operator delete[](void* memory, std::align_val_t alignment) noexcept { release(memory, static_cast<std::size_t>(alignment)); }
void operator delete(void* memory, std::size_t, std::align_val_t alignment) noexcept { release(memory, static_cast<std::size_t>(alignment)); }
void operator delete[](void* memory, std::size_t, std::align_val_t alignment) noexcept { release(memory, static_cast<std::size_t>(alignment)); }

namespace {

/// Operands of one width that all heads share: what is measured hangs on sizes, and so does the time.
class SharedOperands {
 public:
  SharedOperands(Kind kind, std::int64_t heads, std::int64_t length) {
    p.kind = kind, p.B = 1, p.H = heads, p.L = p.Lk = length, p.D = p.Dv = 8;
    rows_.resize(static_cast<std::size_t>(length * p.D));
    for (std::size_t i = 0; i < rows_.size(); ++i) rows_[i] = static_cast<float>(i % 7) - 3;
    results_.resize(7, std::vector<float>(static_cast<std::size_t>(heads * length * p.D)));
    weights_.resize(static_cast<std::size_t>(4 * heads), 0.5f);
    stats_.resize(static_cast<std::size_t>(stats_per_row(kind) * heads * length));
    p.q = p.k = p.v = p.q2 = p.k2 = p.v2 = p.dout = View{rows_.data(), 0, 0, p.D};
    auto result = [&](std::size_t n) { return MutableView{results_[n].data(), 0, length * p.D, p.D}; };
    p.o = result(0), p.dq = result(1), p.dk = result(2), p.dv = result(3), p.dq2 = result(4), p.dk2 = result(5), p.dv2 = result(6);
    p.w_plus = weights_.data(), p.w_minus = p.w_plus + heads, p.dw_plus = weights_.data() + 2 * heads, p.dw_minus = p.dw_plus + heads;
    p.stats = stats_.data();
  }
  AttentionParams p;

 private:
  std::vector<float> rows_, weights_, stats_;
  std::vector<std::vector<float>> results_;
};

/// Four times the length, four times the memory. What is above 4: a piece of 128 queries of a head has blocks of 48, a larger one of 60.
constexpr double kFourTimes = 4.3;

/// Most bytes that f has allocated at a time, in a thread of its own: a thread keeps its scratch for the next call.
template <class F>
std::int64_t peak_of(F f) {
  std::int64_t peak = 0;
  std::thread([&] {
    const std::int64_t before = allocated_bytes;
    peak_bytes = before;
    f();
    peak = peak_bytes - before;
  }).join();
  return peak;
}

}  // namespace

TEST_CASE("fused attention: the memory of forward and backward is linear in the length, and what attention_memory says") {
  for (Kind kind : {Kind::softmax, Kind::dipole, Kind::diff})
    for (std::int64_t heads : {1, 4, 16, 32}) {
      std::int64_t peaks[2] = {};
      for (int n = 0; n < 2; ++n) {
        SharedOperands operands(kind, heads, n == 0 ? 1024 : 4096);
        peaks[n] = peak_of([&] {
          attention_forward(operands.p);
          attention_backward(operands.p);
        });
        const AttentionMemory forward = attention_memory(operands.p, false), backward = attention_memory(operands.p, true);
        const double least = static_cast<double>(backward.each_thread + backward.shared);
        const double said = static_cast<double>(std::max(forward.each_thread, backward.each_thread) + backward.shared);
        const auto peak = static_cast<double>(peaks[n]);
        INFO(kind_name(kind) << ", " << heads << " heads, " << operands.p.L << " queries: " << peaks[n] << " bytes, said " << said);
        CHECK(peak >= least);
        CHECK(peak <= said + 8192);  // closures, the items' sums of dw, alignment
      }
      INFO(kind_name(kind) << ", " << heads << " heads: " << peaks[0] << " and " << peaks[1] << " bytes");
      CHECK(static_cast<double>(peaks[1]) < kFourTimes * static_cast<double>(peaks[0]));
    }
}

TEST_CASE("fused attention: every instruction set's memory is linear in the length") {
  for (int kind = 0; kind < kKindCount; ++kind)
    for (bool backward : {false, true})
      for (std::int64_t heads : {1, 4, 16, 32})
        with_each_isa([&](const std::string& isa) {
          auto bytes = [&](std::int64_t length) {
            AttentionParams p;
            p.kind = static_cast<Kind>(kind), p.B = 1, p.H = heads, p.L = p.Lk = length, p.D = p.Dv = 32;
            const AttentionMemory memory = attention_memory(p, backward);
            return static_cast<double>(memory.each_thread + memory.shared);
          };
          INFO(isa << " " << kind_name(static_cast<Kind>(kind)) << ", " << heads << " heads");
          CHECK(bytes(4096) < kFourTimes * bytes(1024));
          CHECK(bytes(16384) < kFourTimes * bytes(4096));
        });
}
