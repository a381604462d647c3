#pragma once
#include <cstddef>

namespace uvit::cuda::emulator {

/// A function on a stack of its own that can stop in its middle. x86-64 only. AddressSanitizer is told of every switch.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next resume() runs `entry` from its beginning; whatever was on the stack is forgotten. `entry` must end by leave().
  void prepare(void (*entry)());
  /// Runs the fiber until it pauses or leaves. Called from the thread's own stack only.
  void resume();
  /// Back to resume()'s caller, from within the fiber.
  static void pause();
  /// The same, for the last time.
  [[noreturn]] static void leave();
  /// Gives up what is on the stack, and returns what rsp may then be as if a function had just been called.
  void* abandon();
  /// True where an address lies in the page below the stack: the stack has overflowed.
  bool overflowed_at(const void* address) const;

 private:
  unsigned char* stack_;
  void* stack_pointer_ = nullptr;
  void* fake_stack_ = nullptr;
};

}  // namespace uvit::cuda::emulator
