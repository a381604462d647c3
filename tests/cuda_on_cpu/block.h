#pragma once
// The state of the block that runs, shared by the emulator's own files.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda_on_cpu/emulator.h"
#include "cuda_on_cpu/fiber.h"
#include "cuda_on_cpu/memory.h"
#include "kernels/cuda/arch.cuh"

namespace uvit::cuda::emulator {

inline constexpr int kLanes = 32;

enum class Operation { none, shuffle, vote, mma, ldmatrix, sync_warp, sync_block };

struct AsyncCopy {
  unsigned char* target;
  unsigned char data[16];
  Site site;
};

struct Thread {
  int index = 0, lane = 0, warp = 0;
  bool done = false;
  Operation waits_in = Operation::none;
  Site site;                       ///< of the last arch function it called
  const void* operands = nullptr;  ///< of the collective it waits in
  void* result = nullptr;
  std::uint32_t block_epoch = 0, warp_epoch = 0;       ///< barriers passed: two accesses of one warp are ordered by either, of two warps by the first
  std::vector<AsyncCopy> open_group;                   ///< copies not yet committed
  std::vector<std::vector<AsyncCopy>> pending_groups;  ///< committed ones, oldest first
  Fiber fiber;
};

struct Block {
  std::string kernel;
  int index[3] = {0, 0, 0}, grid[3] = {1, 1, 1};
  int threads = 0, running = 0, at_barrier = 0;
  std::uint64_t serial = 0;  ///< of all blocks ever run
  unsigned char* shared = nullptr;
  std::size_t shared_bytes = 0;
  ShadowCell* shared_shadow = nullptr;
  std::vector<std::unique_ptr<Thread>>* all = nullptr;  ///< at least `threads` of them
  const std::function<void()>* body = nullptr;
  std::string error;

  Thread& thread(int i) const { return *(*all)[static_cast<std::size_t>(i)]; }
};

inline Block* block = nullptr;            ///< null outside run_grid
inline Thread* current_thread = nullptr;  ///< null while the scheduler runs
inline Settings active_settings;
inline Counters active_counters;

/// Unwinds a fiber to its beginning: the scheduler throws what Block::error says, since no exception can cross to its stack.
struct FiberFailed {};

/// Ends the launch with an EmulationError: "<kernel>, block (x, y, z), thread i at <site>: <message>".
[[noreturn]] void fail(const std::string& message);

std::string site_name(const Site& site);
const char* operation_name(Operation operation);

/// True where this call is to be broken. Records the call among the sites at which it could be.
bool is_faulty(FaultKind kind, const Site& site);

using Lanes = Thread* const (&)[kLanes];
/// Waits until all lanes of the warp are here; the last one then runs `perform` for all.
void collective(Operation operation, const void* operands, void* result, Site site, void (*perform)(Lanes));

}  // namespace uvit::cuda::emulator
