#pragma once
// Emulated memories and the checks of accesses to them.
#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda_on_cpu/run_grid.h"

namespace uvit::cuda::emulator {

/// What the race checker (shadow.h) knows of a byte. Blocks are counted from 1 over the whole program.
struct ShadowCell {
  std::uint64_t write_block = 0, read_block = 0;
  std::uint32_t write_epoch = 0, write_warp_epoch = 0, read_epoch = 0, read_warp_epoch = 0;
  std::uint32_t reader_warps = 0, reader_lanes = 0;  ///< in read_epoch; lanes: of the warp that read last, in read_warp_epoch
  std::int16_t writer = 0;
  bool in_flight = false;       ///< the target of a copy not yet waited for
  bool read_by_blocks = false;  ///< by blocks of this launch besides read_block
};

/// A block's dynamic shared memory, 128-byte aligned, between pages that cannot be touched.
class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  unsigned char* data() const { return data_; }
  std::vector<ShadowCell>& shadow() { return shadow_; }
  /// All NaN again, as a block of the GPU may find it.
  void forget();

 private:
  unsigned char *pages_, *data_;
  std::size_t page_bytes_, bytes_;
  std::vector<ShadowCell> shadow_;  ///< empty unless races are checked
};

/// While it lives, touching a page that cannot be touched ends the launch with an EmulationError instead of the program.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

 private:
  struct sigaction old_segv_, old_bus_;
};

enum class Space { shared, global };
enum class Access { read, write };

/// Fails unless [p, p + bytes) lies in the block's shared memory or in one GlobalMemory, and p is a multiple of `alignment`.
void check_access(Space space, Access access, const void* p, std::size_t bytes, std::size_t alignment);

/// Where an address lies: "byte 20 of k (1024 bytes)", "16 bytes past the end of shared memory (4096 bytes)".
std::string describe_address(const void* p);

/// All emulated global memory lies in one range of addresses.
bool is_in_global_arena(const void* p);
/// In the pages of the running block's shared memory or close to them.
bool is_near_shared(const void* p);

struct Shadow {
  ShadowCell* cells;  ///< of the address asked for and those after it
  bool is_shared;
};
/// @param p  in shared memory or in a GlobalMemory.
Shadow shadow_of(const void* p);

}  // namespace uvit::cuda::emulator
