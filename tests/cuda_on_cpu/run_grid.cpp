#include "cuda_on_cpu/run_grid.h"

#include <fmt/format.h>

#include <algorithm>

#include "cuda_on_cpu/banks.h"
#include "cuda_on_cpu/block.h"
#include "cuda_on_cpu/memory.h"
#include "cuda_on_cpu/shadow.h"

namespace uvit::cuda::emulator {
namespace {

constexpr int kMaxThreads = 1024, kMaxShared = 227 * 1024, kMaxGridYZ = 65535;

class Order {
 public:
  explicit Order(std::uint32_t seed) : state_(seed * 2654435761u + 1), is_natural_(seed == 0) {}
  /// Where a round over `count` things starts.
  int start(int count) {
    if (is_natural_) return 0;
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<int>((state_ >> 16) % static_cast<std::uint32_t>(count));
  }
  /// And how far it steps: prime to 32, so that every lane has its turn.
  int step() { return is_natural_ ? 1 : 2 * start(16) + 1; }

 private:
  std::uint32_t state_;
  bool is_natural_;
};

void run_body() {
  (*block->body)();
  Thread& self = *current_thread;
  bool waits = !self.open_group.empty();
  for (const auto& group : self.pending_groups) waits = waits || !group.empty();
  if (waits) fail("the thread ends while copies of cp_async_16 are under way: wait for them");
  self.done = true;
  --block->running;
}

void thread_main() {
  try {
    run_body();
  } catch (const FiberFailed&) {
  }
  Fiber::leave();
}

bool run_thread(Thread& thread) {
  if (thread.done || thread.waits_in != Operation::none) return false;
  current_thread = &thread;
  thread.fiber.resume();
  current_thread = nullptr;
  if (!block->error.empty()) throw EmulationError(block->error);
  return true;
}

/// Runs the lanes of a warp until all of them wait for others or are done.
bool run_warp(int warp, Order& order) {
  bool progress = false;
  for (bool again = true; again;) {
    again = false;
    const int start = order.start(kLanes), step = order.step();
    for (int i = 0; i < kLanes; ++i) again = run_thread(block->thread(warp * kLanes + (start + i * step) % kLanes)) || again;
    progress = progress || again;
  }
  return progress;
}

bool release_barrier() {
  if (block->running == 0 || block->at_barrier < block->threads) return false;
  block->at_barrier = 0;
  for (int i = 0; i < block->threads; ++i) {
    Thread& thread = block->thread(i);
    thread.waits_in = Operation::none;
    ++thread.block_epoch;
  }
  ++active_counters.barriers;
  return true;
}

std::string describe_waiting() {
  std::string text;
  int shown = 0;
  for (int i = 0; i < block->threads && shown < 4; ++i) {
    const Thread& thread = block->thread(i);
    if (i > 0 && thread.waits_in == block->thread(i - 1).waits_in && thread.done == block->thread(i - 1).done) continue;
    text += thread.done ? fmt::format("{}from thread {} on: ended", shown ? "; " : "", i)
                        : fmt::format("{}from thread {} on: in {} at {}", shown ? "; " : "", i, operation_name(thread.waits_in), site_name(thread.site));
    ++shown;
  }
  return text;
}

void run_block(Order& order) {
  for (int i = 0; i < block->threads; ++i) {
    Thread& thread = block->thread(i);
    thread.index = i;
    thread.lane = i % kLanes;
    thread.warp = i / kLanes;
    thread.done = false;
    thread.waits_in = Operation::none;
    thread.site = Site();
    thread.block_epoch = thread.warp_epoch = 0;
    thread.open_group.clear();
    thread.pending_groups.clear();
    thread.fiber.prepare(thread_main);
  }
  block->running = block->threads;
  block->at_barrier = 0;
  const int warps = block->threads / kLanes;
  while (block->running > 0) {
    bool progress = false;
    const int start = order.start(warps);
    for (int i = 0; i < warps; ++i) progress = run_warp((start + i) % warps, order) || progress;
    progress = release_barrier() || progress;
    if (!progress) fail("deadlock: " + describe_waiting());
  }
}

void check_shape(const char* kernel, const int (&grid)[3], int threads, std::size_t shared_bytes) {
  if (block) fail(fmt::format("launches {}: a kernel cannot", kernel));
  if (threads < kLanes || threads > kMaxThreads || threads % kLanes)
    throw EmulationError(fmt::format("{}: {} threads a block; the emulator takes whole warps, 32 to {}", kernel, threads, kMaxThreads));
  if (shared_bytes > static_cast<std::size_t>(kMaxShared))
    throw EmulationError(fmt::format("{}: {} bytes of shared memory; no GPU gives a block more than {}", kernel, shared_bytes, kMaxShared));
  for (int d = 0; d < 3; ++d)
    if (grid[d] < 0 || (d > 0 && grid[d] > kMaxGridYZ)) throw EmulationError(fmt::format("{}: grid dimension {} is {}", kernel, d, grid[d]));
}

/// Leaves no trace of the block, also where a launch ends by an exception.
struct BlockGuard {
  explicit BlockGuard(Block& b) { block = &b; }
  ~BlockGuard() {
    block = nullptr;
    current_thread = nullptr;
    forget_recorded_accesses();
  }
};

}  // namespace

void run_grid(const char* kernel, const int (&grid)[3], int threads, std::size_t shared_bytes, const std::function<void()>& body) {
  static std::vector<std::unique_ptr<Thread>> pool;
  static std::uint64_t serial = 0;
  check_shape(kernel, grid, threads, shared_bytes);
  while (pool.size() < static_cast<std::size_t>(threads)) pool.push_back(std::make_unique<Thread>());

  Block state;
  state.kernel = kernel;
  std::copy(grid, grid + 3, state.grid);
  state.threads = threads;
  state.all = &pool;
  state.body = &body;
  state.shared_bytes = shared_bytes;
  SharedMemory shared(shared_bytes);
  state.shared = shared.data();
  state.shared_shadow = shared.shadow().data();
  BlockGuard block_guard(state);
  SignalGuard signals;
  Order order(active_settings.seed);
  ++active_counters.launches;
  begin_launch(serial + 1);
  for (int z = 0; z < grid[2]; ++z)
    for (int y = 0; y < grid[1]; ++y)
      for (int x = 0; x < grid[0]; ++x) {
        state.index[0] = x;
        state.index[1] = y;
        state.index[2] = z;
        state.serial = ++serial;
        shared.forget();
        run_block(order);
        count_recorded_accesses();
        ++active_counters.blocks;
      }
}

}  // namespace uvit::cuda::emulator
