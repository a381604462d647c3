#pragma once
// Every tuning number of the CUDA attention kernels. What each choice costs in registers and instructions: kernels/README.md.

namespace uvit::kernels::cuda {

/// What a kernel is compiled for: the kinds softmax and cog; the other kinds with one normaliser, whose law is a run-time switch; two normalisers
/// over one score, softmax(s) and softmax(-s).
enum class Variant { softmax, cog, other, dual };

/// A block of `warps` warps takes warps * row_tiles * 16 queries and goes over the keys `keys` at a time.
struct ForwardTile {
  int warps, row_tiles, keys;
  bool keep_rows;     ///< q's fragments stay in registers; else they are read from shared memory for each tile of keys
  int blocks_per_sm;  ///< that registers must allow
  constexpr int rows() const { return warps * row_tiles * 16; }
};

/// 32 queries a warp halve the loads from shared memory per tensor-core instruction; only head_dim 64 with one normaliser has the registers for it.
constexpr ForwardTile forward_tile(Variant variant, int head_dim) {
  if (variant == Variant::dual) return head_dim == 64 ? ForwardTile{4, 1, 64, true, 2} : ForwardTile{4, 1, 32, false, 2};
  return head_dim == 64 ? ForwardTile{4, 2, 64, variant != Variant::cog, 2} : ForwardTile{4, 1, 64, true, 2};
}

/// A block owns warps * 16 rows (keys for dK and dV, queries for dQ) and goes over the other side `step` rows at a time.
struct BackwardTile {
  int warps, step;
  bool keep_rows;  ///< the fragments of the owned rows stay in registers
  int blocks_per_sm;
  constexpr int rows() const { return warps * 16; }
};

constexpr BackwardTile backward_tile(Variant variant, int head_dim) {
  if (head_dim == 64) return {4, 64, true, 2};
  return {4, variant == Variant::dual ? 16 : 32, false, 2};
}

// float32: 256 threads as 16 x 16, each with so many rows and columns of a tile of scores.
inline constexpr int kF32Threads = 256, kF32ForwardRows = 4, kF32BackwardRows = 2, kF32Keys = 2;

inline constexpr int kRowsThreads = 128;   ///< prepare_rows
inline constexpr int kPrefixThreads = 128;  ///< running sums: one thread a column
inline constexpr int kSumThreads = 256;    ///< gradient of w_plus and w_minus: one block a head

}  // namespace uvit::kernels::cuda
