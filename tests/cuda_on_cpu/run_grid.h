#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace uvit::cuda::emulator {

/// Runs `body` once for each thread of each block, block after block: what a kernel launch is here. Threads of a block are fibers of the calling
/// thread, so that a run is a function of the arguments and the seed. Not to be called from several threads, nor from a kernel.
/// @param threads  of a block: a multiple of 32, up to 1024.
/// @throws EmulationError (emulator.h) at the first thing a kernel must not do; the fibers are abandoned.
void run_grid(const char* kernel, const int (&grid)[3], int threads, std::size_t shared_bytes, const std::function<void()>& body);

}  // namespace uvit::cuda::emulator
