#pragma once
// Small kernels that do one thing each, right or wrong, for the emulator's own tests. They lie in a file of their own, which is compiled with and
// without the race checker's hooks.
#include <cstdint>

#include "kernels/cuda/launch.cuh"

namespace uvit::cuda::self {

using arch::bf16;
using arch::f16;

/// One mma by a warp on fragments given register by register.
struct Fragments {
  std::uint32_t a[32][4] = {}, b[32][2] = {};
  float c[32][4] = {};
};
enum class Product { bf16, f16, tf32 };
void multiply_fragments(Product product, Fragments* fragments);

/// matrices: 8 x 8 of 16 bits, 4 of them one after the other; out: [32][4] registers.
void load_matrices(const std::uint16_t* matrices, std::uint32_t* out, bool transposed, bool two);

/// c [16, 8] = a [16, 16] b, b given as [8, 16] by columns; through cp.async, shared memory, ldmatrix and mma. Rows lie 32 bytes apart.
void multiply(const bf16* a, const bf16* b, float* c);

/// out[lane] = shuffle_xor(in[lane], mask), out[32 + lane] = shuffle(in[lane], from), out[64], out[65] = any, all of in[lane] > threshold.
void shuffle(const float* in, float* out, int mask, int from, float threshold);

/// What a wait leaves: two groups of one copy a lane; out[stage][lane] = first word of both targets before, after wait<1>, after wait<0>.
/// Copies of lanes from `valid` on are not valid.
void copy(const float* in, float* out, int valid);

/// out[i] = the i-th 4 bytes of a fresh block's shared memory, of `words`, plainly read.
void read_fresh(float* out, int words);

/// indices: 5 numbers a thread of a grid of 2 x 3 x 2 blocks of 64: block, thread, number of threads.
void number_threads(int* out);

/// Lane l reads (ldmatrix) or writes (store_shared of `words` 4-byte words, by every lane) the address stride * l.
void ldmatrix_stride(int stride);
void store_stride(int stride, int words);

// ---- what a kernel must not do
enum class Wrong {
  barrier_by_half,         ///< of the warps
  diverging_barrier,       ///< half of a warp is at sync_block, the other in a shuffle
  diverging_lines,         ///< the two halves of a warp shuffle at different lines
  lane_has_ended,          ///< in a shuffle
  barrier_after_end,       ///< of another thread
  pending_at_end,          ///< a copy never waited for
  shuffle_lane_32,
  ldmatrix_past_shared,
  ldmatrix_misaligned,
  copy_past_shared,
  copy_from_past_global,
  copy_misaligned,
  load_past_global,
  load_misaligned,
  store_before_shared,
  plain_read_past_global,  ///< by the page after it
  plain_write_past_shared,
  endless_recursion,
};
void do_wrong(Wrong wrong, float* global, int count);

// ---- races, and the same without the race
enum class Race {
  write_then_read,           ///< by different warps
  write_then_read_barrier,
  read_then_write,
  read_then_write_barrier,
  write_then_write,
  in_warp,                   ///< write then read by lanes of one warp
  in_warp_sync_warp,
  in_warp_shuffle,           ///< a shuffle is no barrier
  sync_warp_between_warps,   ///< nor is sync_warp one for two warps
  copy_without_barrier,      ///< a lane waits for its copy, another warp reads it
  copy_with_barrier,
  copy_over_reads,           ///< a copy begins while another warp may still read what its target held
  copy_read_early,           ///< by its own thread, before the wait
  unwritten_shared,
  global_between_warps,
  global_between_warps_barrier,
  global_between_blocks,
  global_read_by_blocks,     ///< read by all, written by none
  global_write_read_blocks,  ///< every block reads a place that one block writes
  misaligned,
  past_shared_plain,         ///< within the page of shared memory
};
void race(Race race, float* global);

}  // namespace uvit::cuda::self
