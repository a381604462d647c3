#pragma once

namespace uvit {

/// True once SIGINT or SIGTERM has come since the last clear_interrupt. install_signal_handlers (trainer.h) sets this up.
bool interrupt_requested();
void clear_interrupt();

/// Leaves a step, an evaluation, a sampling or a score in its middle, so that training can save and end soon after a signal.
struct Interrupted {};

}  // namespace uvit
