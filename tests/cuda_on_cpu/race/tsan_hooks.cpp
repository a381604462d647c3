// g++ -fsanitize=thread calls a hook before every load and store. Kernels compiled so are linked with these hooks in place of ThreadSanitizer's
// library, which is slow on fibers and knows nothing of CUDA's barriers. Programs that link this file check races.
#include "cuda_on_cpu/shadow.h"

using uvit::cuda::emulator::check_plain_access;

[[maybe_unused]] static const bool is_enabled = uvit::cuda::emulator::enable_race_checks();

extern "C" {
#define UVIT_HOOKS(bytes)                                                                                                                \
  void __tsan_read##bytes(void* p) { check_plain_access(p, bytes, false, __builtin_return_address(0)); }                                 \
  void __tsan_write##bytes(void* p) { check_plain_access(p, bytes, true, __builtin_return_address(0)); }                                 \
  void __tsan_unaligned_read##bytes(void* p) { check_plain_access(p, bytes, false, __builtin_return_address(0)); }                       \
  void __tsan_unaligned_write##bytes(void* p) { check_plain_access(p, bytes, true, __builtin_return_address(0)); }                       \
  void __tsan_volatile_read##bytes(void* p) { check_plain_access(p, bytes, false, __builtin_return_address(0)); }                        \
  void __tsan_volatile_write##bytes(void* p) { check_plain_access(p, bytes, true, __builtin_return_address(0)); }
UVIT_HOOKS(1)
UVIT_HOOKS(2)
UVIT_HOOKS(4)
UVIT_HOOKS(8)
UVIT_HOOKS(16)
void __tsan_read_range(void* p, unsigned long bytes) { check_plain_access(p, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, unsigned long bytes) { check_plain_access(p, bytes, true, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
