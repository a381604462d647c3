#pragma once
// The race checker: who touched each byte of shared and global memory last, and in which epoch. It is on in programs whose kernels are compiled with
// the hooks of race/tsan_hooks.cpp, which see every plain load and store; the arch functions report theirs either way.
//
// Two accesses of a block, at least one of them a write, are ordered if a sync_block lies between them, or if they are of one warp and a sync_warp lies
// between them; shuffles, mma and ldmatrix order nothing. Two blocks of a launch are never ordered. What is not ordered is an error, whether or not
// this run's result suffered from it.
#include <cstddef>
#include <cstdint>

namespace uvit::cuda::emulator {

/// Turns the checker on for the whole program.
bool enable_race_checks();
bool checks_races();

/// Accesses by blocks before this one are of an earlier launch, and ordered.
void begin_launch(std::uint64_t first_block);

// By the current thread, of memory that check_access has found good.
void note_read(const void* p, std::size_t bytes);
void note_write(const void* p, std::size_t bytes);
/// The target of an asynchronous copy: written from now on, and not to be read before note_arrival().
void note_departure(const void* p, std::size_t bytes);
void note_arrival(const void* p, std::size_t bytes);

/// A plain load or store, seen by a hook: checked as check_access does, noted, and counted for bank conflicts. Memory that is neither shared nor in the
/// arena of global memory (the thread's own stack, constants) is of no interest.
void check_plain_access(const void* p, std::size_t bytes, bool is_write, const void* instruction);

}  // namespace uvit::cuda::emulator
