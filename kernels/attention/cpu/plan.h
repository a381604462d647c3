#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/attention/params.h"

namespace uvit::kernels {

/// How one call is cut into pieces. A function of the sizes alone, never of the number of threads: results do not depend on that.
struct Plan {
  std::int64_t splits = 1;      ///< pieces of a head's queries; an item of work is one piece of one head
  std::int64_t split_rows = 0;  ///< queries a piece
  std::int64_t row_block = 0;   ///< queries whose scores are in memory at a time
  std::int64_t key_tile = 0;    ///< keys whose scores are in memory at a time
  std::int64_t items = 0;       ///< B * H * splits
};

/// What one instruction set provides. `scratch` is 64-byte aligned, of scratch_floats(params, plan) floats.
struct KernelTable {
  const char* name;
  Plan (*forward_plan)(const AttentionParams&);
  std::size_t (*forward_scratch)(const AttentionParams&, const Plan&);
  void (*forward)(const AttentionParams&, const Plan&, std::int64_t item, float* scratch);

  Plan (*backward_plan)(const AttentionParams&);
  std::size_t (*backward_scratch)(const AttentionParams&, const Plan&);
  /// Floats of one item's sums for dk, dv, dk2, dv2.
  std::size_t (*key_sums)(const AttentionParams&, const Plan&);
  /// Writes the item's dq (and dq2), its key sums to `sums`, and its shares of dw_plus and dw_minus to weight_sums[0] and [1].
  void (*backward)(const AttentionParams&, const Plan&, std::int64_t item, float* scratch, float* sums, double* weight_sums);
  /// After all items: adds the splits' key sums of a head in order, for one of plan.splits pieces of its keys, and writes dk, dv, dk2, dv2 there.
  /// @param head_sums  the sums of the head's first item, the others key_sums floats apart; overwritten
  void (*finish)(const AttentionParams&, const Plan&, std::int64_t item, float* head_sums);
};

extern const KernelTable kPortableKernels;
#ifdef UVIT_X86_KERNELS
extern const KernelTable kAvx2Kernels, kAvx512Kernels, kAvx512Bf16Kernels, kAmxBf16Kernels;
#endif
#ifdef UVIT_AMX_EMULATED
extern const KernelTable kAmxBf16EmulatedKernels;
#endif

/// Whether AMX tiles of bfloat16 may be used: the processor has them, the system saves them, and it lets this process have them. Linux wants to be
/// asked once; the answer holds for every thread of the process, those that run already included.
bool amx_bf16_permitted();

/// Adds an instruction set that is no part of the library, for tests; it stands behind "portable", so that it is never the default. To be called
/// before any other function.
void add_attention_isa(const KernelTable& table, bool (*runs_here)());

}  // namespace uvit::kernels
