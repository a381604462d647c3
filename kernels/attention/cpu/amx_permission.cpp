#include "kernels/attention/cpu/plan.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace uvit::kernels {
namespace {

/// Leaf 7 of CPUID: AMX-BF16 is bit 22 and AMX-TILE bit 24 of EDX.
bool processor_has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1);
}

/// XCR0: the system saves the tiles' configuration (bit 17) and data (bit 18) when it switches threads.
bool system_saves_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return false;  // OSXSAVE: xgetbv may be executed
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low >> 17 & 3) == 3;
}

/// Tile data are 8 KB a thread, so Linux (5.16 on) gives them to processes that ask: Documentation/arch/x86/xstate.rst. It refuses where a thread's
/// alternate signal stack is too small for them.
bool system_permits_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool amx_bf16_permitted() {
  static const bool permitted = processor_has_tiles() && system_saves_tiles() && system_permits_tiles();
  return permitted;
}

}  // namespace uvit::kernels
#else
namespace uvit::kernels {

bool amx_bf16_permitted() { return false; }

}  // namespace uvit::kernels
#endif
