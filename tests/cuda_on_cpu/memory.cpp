#include "cuda_on_cpu/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <map>
#include <new>

#include "cuda_on_cpu/block.h"
#include "cuda_on_cpu/shadow.h"

namespace uvit::cuda::emulator {
namespace {

constexpr std::size_t kPage = 4096, kArenaBytes = std::size_t{1} << 36, kGapBytes = 16 * kPage;

constexpr std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

unsigned char* reserve(std::size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  return static_cast<unsigned char*>(pages);
}

struct Allocation {
  std::string name;
  std::size_t bytes;
  std::vector<ShadowCell> shadow;  ///< made at the first access that the race checker sees
};

/// One reserved range of addresses; allocations never move down while any is alive, so that a stale pointer meets untouchable pages.
struct Arena {
  unsigned char* begin = reserve(kArenaBytes);
  std::size_t used = kGapBytes;
  std::map<const unsigned char*, Allocation> allocations;

  /// The allocation that ends after p and begins nearest, before or after it.
  std::map<const unsigned char*, Allocation>::iterator nearest(const unsigned char* p) {
    auto after = allocations.upper_bound(p);
    if (after == allocations.begin()) return after;
    auto before = std::prev(after);
    if (after == allocations.end() || p < before->first + before->second.bytes) return before;
    return static_cast<std::size_t>(p - before->first) - before->second.bytes < static_cast<std::size_t>(after->first - p) ? before : after;
  }
};

Arena& arena() {
  static Arena instance;
  return instance;
}

std::string describe_offset(const unsigned char* p, const unsigned char* begin, std::size_t bytes, const std::string& name) {
  if (p < begin) return fmt::format("{} bytes before {}", begin - p, name);
  const auto offset = static_cast<std::size_t>(p - begin);
  if (offset >= bytes) return fmt::format("{} bytes past the end of {} ({} bytes)", offset - bytes, name, bytes);
  return fmt::format("byte {} of {} ({} bytes)", offset, name, bytes);
}

// ---- pages that cannot be touched
const void* fault_address = nullptr;
alignas(64) unsigned char signal_stack[64 * 1024];

[[noreturn]] void land() {
  try {
    if (current_thread->fiber.overflowed_at(fault_address)) fail("the emulator's stack of this thread is too small (an endless recursion?)");
    fail("touches " + describe_address(fault_address));
  } catch (const FiberFailed&) {
  }
  Fiber::leave();
}

void on_signal(int signal, siginfo_t* info, void* context) {
  if (!block || !current_thread) {  // no kernel's fault: the default action comes when the instruction runs again
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
    return;
  }
  fault_address = info->si_addr;
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  registers[REG_RIP] = reinterpret_cast<greg_t>(&land);
  registers[REG_RSP] = reinterpret_cast<greg_t>(current_thread->fiber.abandon());  // it may have overflowed, and nothing on it is needed any more
}

}  // namespace

SharedMemory::SharedMemory(std::size_t bytes) : page_bytes_(round_up(bytes, kPage) + 2 * kPage), bytes_(bytes) {
  pages_ = reserve(page_bytes_);
  if (bytes && mprotect(pages_ + kPage, page_bytes_ - 2 * kPage, PROT_READ | PROT_WRITE)) throw std::bad_alloc();
  data_ = pages_ + page_bytes_ - kPage - round_up(bytes, 128);
  if (checks_races()) shadow_.resize(bytes);
}
SharedMemory::~SharedMemory() { munmap(pages_, page_bytes_); }
void SharedMemory::forget() { std::memset(data_, 0xff, bytes_); }

SignalGuard::SignalGuard() {
  stack_t stack = {};
  sigaltstack(nullptr, &stack);
  if (stack.ss_flags & SS_DISABLE) {  // a handler cannot run on the stack that has overflowed
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    stack.ss_flags = 0;
    sigaltstack(&stack, nullptr);
  }
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &old_segv_);
  sigaction(SIGBUS, &action, &old_bus_);
}
SignalGuard::~SignalGuard() {
  sigaction(SIGSEGV, &old_segv_, nullptr);
  sigaction(SIGBUS, &old_bus_, nullptr);
}

GlobalMemory::GlobalMemory(std::string name, std::size_t bytes) : bytes_(bytes) {
  Arena& a = arena();
  const std::size_t pages = round_up(bytes, kPage);
  if (a.used + pages + kGapBytes > kArenaBytes) throw std::bad_alloc();
  unsigned char* begin = a.begin + a.used;
  if (pages && mprotect(begin, pages, PROT_READ | PROT_WRITE)) throw std::bad_alloc();
  a.used += pages + kGapBytes;
  data_ = begin + pages - round_up(bytes, 16);
  std::memset(data_, 0xff, bytes);
  a.allocations.emplace(data_, Allocation{std::move(name), bytes, {}});
}

GlobalMemory::~GlobalMemory() {
  Arena& a = arena();
  a.allocations.erase(data_);
  const std::size_t pages = round_up(bytes_, kPage);
  unsigned char* begin = data_ + round_up(bytes_, 16) - pages;
  if (pages) {
    mprotect(begin, pages, PROT_NONE);
    madvise(begin, pages, MADV_DONTNEED);
  }
  if (a.allocations.empty()) a.used = kGapBytes;
}

bool is_in_global_arena(const void* p) {
  const Arena& a = arena();
  return static_cast<std::size_t>(static_cast<const unsigned char*>(p) - a.begin) < kArenaBytes;
}

bool is_near_shared(const void* p) {
  constexpr std::ptrdiff_t kNear = 1 << 12;
  const std::ptrdiff_t offset = static_cast<const unsigned char*>(p) - block->shared;
  return offset >= -kNear && offset < static_cast<std::ptrdiff_t>(block->shared_bytes) + kNear;
}

Shadow shadow_of(const void* p) {
  const auto* byte = static_cast<const unsigned char*>(p);
  if (byte >= block->shared && byte < block->shared + block->shared_bytes) return {block->shared_shadow + (byte - block->shared), true};
  const auto it = arena().nearest(byte);
  if (it->second.shadow.empty()) it->second.shadow.resize(it->second.bytes);
  return {it->second.shadow.data() + (byte - it->first), false};
}

std::string describe_address(const void* p) {
  const auto* byte = static_cast<const unsigned char*>(p);
  if (is_in_global_arena(p)) {
    Arena& a = arena();
    const auto it = a.nearest(byte);
    if (it == a.allocations.end()) return "global memory that was freed";
    return describe_offset(byte, it->first, it->second.bytes, it->second.name);
  }
  if (is_near_shared(p)) return describe_offset(byte, block->shared, block->shared_bytes, "shared memory");
  return fmt::format("address {}, which is neither shared memory nor in any buffer", fmt::ptr(p));
}

void check_access(Space space, Access access, const void* p, std::size_t bytes, std::size_t alignment) {
  const char* verb = access == Access::read ? "reads" : "writes";
  const auto* byte = static_cast<const unsigned char*>(p);
  const char* wanted = space == Space::shared ? "shared" : "global";
  bool inside;
  if (space == Space::shared) {
    inside = byte >= block->shared && byte + bytes <= block->shared + block->shared_bytes;
  } else {
    Arena& a = arena();
    const auto it = a.nearest(byte);
    inside = it != a.allocations.end() && byte >= it->first && byte + bytes <= it->first + it->second.bytes;
  }
  if (!inside) fail(fmt::format("{} {} bytes of {} memory at {}", verb, bytes, wanted, describe_address(p)));
  if (reinterpret_cast<std::uintptr_t>(p) % alignment)
    fail(fmt::format("{} {} bytes at {}: the address is no multiple of {}", verb, bytes, describe_address(p), alignment));
}

}  // namespace uvit::cuda::emulator
