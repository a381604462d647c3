#include "train/interrupt.h"

#include <signal.h>

#include "train/trainer.h"

namespace uvit {
namespace {

volatile sig_atomic_t interrupted = 0;

void on_signal(int) { interrupted = 1; }

}  // namespace

bool interrupt_requested() { return interrupted != 0; }
void clear_interrupt() { interrupted = 0; }

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);  // a second Ctrl-C ends the program at once
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace uvit
