#pragma once
// Emulated memories and the checks of accesses to them.
#include <csignal>
#include <cstdint>
#include <string>

#include "cuda_on_cpu/run_grid.h"

namespace uvit::cuda::emulator {

/// A block's dynamic shared memory, 128-byte aligned, between pages that cannot be touched.
class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  unsigned char* data() const { return data_; }
  /// All NaN again, as a block of the GPU may find it.
  void forget();

 private:
  unsigned char *pages_, *data_;
  std::size_t page_bytes_, bytes_;
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

}  // namespace uvit::cuda::emulator
