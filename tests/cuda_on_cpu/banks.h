#pragma once
#include "cuda_on_cpu/block.h"

namespace uvit::cuda::emulator {

/// Counts the passes that the 32 banks of 4 bytes need for accesses made at once: the largest number of different words in one bank.
void count_wavefronts(const void* const* addresses, int count, int bytes, const Site& site);

/// What tells instructions apart: a source file and line, or an address of code and 0.
using Instruction = std::pair<const void*, std::uint_least32_t>;

/// Notes a shared access of the running thread. The n-th accesses by the lanes of a warp at one instruction are taken as one: a GPU serves
/// 4-byte accesses by 32 lanes at once, 8-byte ones by 16, 16-byte ones by 8.
/// @param site  for the report.
void record_shared_access(const void* address, int bytes, const Instruction& instruction, const Site& site);

/// Counts what the block has recorded, and forgets it.
void count_recorded_accesses();
void forget_recorded_accesses();

}  // namespace uvit::cuda::emulator
