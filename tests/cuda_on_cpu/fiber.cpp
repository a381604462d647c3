#include "cuda_on_cpu/fiber.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define UVIT_ASAN 1
#else
#define UVIT_ASAN 0
#endif

#ifndef __x86_64__
#error "The CUDA emulator switches stacks in x86-64 assembly; CMake leaves its tests out elsewhere"
#endif

// Saves the callee-saved registers on the running stack, its pointer in *save, and goes on from `to`.
extern "C" void uvit_emulator_switch(void** save, void* to);
asm(R"(.text
.type uvit_emulator_switch,@function
uvit_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size uvit_emulator_switch, .-uvit_emulator_switch
)");

namespace uvit::cuda::emulator {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStackBytes = UVIT_ASAN ? 256 * 1024 : 64 * 1024;
constexpr int kSavedRegisters = 6;

Fiber* running = nullptr;
void (*entry_function)() = nullptr;
void* main_stack_pointer = nullptr;
[[maybe_unused]] void* main_fake_stack = nullptr;
[[maybe_unused]] const void* main_stack = nullptr;
[[maybe_unused]] std::size_t main_stack_bytes = 0;

void enter() {
#if UVIT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_stack_bytes);
#endif
  entry_function();
  std::abort();  // an entry ends by leave()
}

}  // namespace

Fiber::Fiber() {
  void* pages = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  mprotect(pages, kPage, PROT_NONE);
  stack_ = static_cast<unsigned char*>(pages) + kPage;
}

Fiber::~Fiber() { munmap(stack_ - kPage, kPage + kStackBytes); }

void* Fiber::abandon() {
#if UVIT_ASAN
  __asan_unpoison_memory_region(stack_, kStackBytes);  // functions that never return leave their red zones behind
#endif
  return stack_ + kStackBytes - sizeof(void*);  // at a function's entry rsp is 8 beyond a multiple of 16
}

void Fiber::prepare(void (*entry)()) {
  entry_function = entry;
  fake_stack_ = nullptr;
  // What uvit_emulator_switch pops: the registers, then the return address.
  void** top = static_cast<void**>(abandon());
  *--top = reinterpret_cast<void*>(&enter);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  stack_pointer_ = top;
}

void Fiber::resume() {
  running = this;
#if UVIT_ASAN
  __sanitizer_start_switch_fiber(&main_fake_stack, stack_, kStackBytes);
#endif
  uvit_emulator_switch(&main_stack_pointer, stack_pointer_);
#if UVIT_ASAN
  __sanitizer_finish_switch_fiber(main_fake_stack, nullptr, nullptr);
#endif
  running = nullptr;
}

void Fiber::pause() {
  Fiber* self = running;
#if UVIT_ASAN
  __sanitizer_start_switch_fiber(&self->fake_stack_, main_stack, main_stack_bytes);
#endif
  uvit_emulator_switch(&self->stack_pointer_, main_stack_pointer);
#if UVIT_ASAN
  __sanitizer_finish_switch_fiber(self->fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::leave() {
#if UVIT_ASAN
  __sanitizer_start_switch_fiber(nullptr, main_stack, main_stack_bytes);
#endif
  uvit_emulator_switch(&running->stack_pointer_, main_stack_pointer);
  std::abort();
}

bool Fiber::overflowed_at(const void* address) const {
  const auto* byte = static_cast<const unsigned char*>(address);
  return byte >= stack_ - kPage && byte < stack_;
}

}  // namespace uvit::cuda::emulator
