#pragma once

namespace uvit {

/// True once SIGINT or SIGTERM has come since the last clear_interrupt. install_signal_handlers (trainer.h) sets this up.
bool interrupt_requested();
void clear_interrupt();

}  // namespace uvit
