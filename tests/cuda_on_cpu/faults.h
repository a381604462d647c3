#pragma once
// Faults that a test seeds into a kernel, to see that the other checks find them. The emulator plays them in the arch function that a line of the
// kernel calls; the kernel's source knows nothing of it.
#include <string>

namespace uvit::cuda::emulator {

enum class FaultKind {
  none,
  skip_wait,           ///< cp_async_wait does nothing
  skip_sync_block,     ///< sync_block does nothing
  skip_sync_warp,      ///< sync_warp does nothing
  skip_mask,           ///< masked() returns the score of keys that the query does not see
  ignore_valid,        ///< cp_async_16 reads the source where the kernel says it is not valid
  swap_a_registers,    ///< an mma takes registers 1 and 2 of A for each other
  swap_b_registers,    ///< an mma takes the registers of B for each other
  swap_c_registers,    ///< an mma takes accumulators 1 and 2 for each other
  swap_loaded,         ///< ldmatrix returns its first two registers in each other's place
  transpose_loaded,    ///< ldmatrix forgets its .trans, or has one too many
  shuffle_wrong_lane,  ///< a shuffle reads the lane beside the one it names
  past_shared,         ///< a shared access (ldmatrix, load_shared, store_shared, target of cp_async_16) goes past the block's shared memory
};

struct Fault {
  FaultKind kind = FaultKind::none;
  std::string site;  ///< "file:line" of the call that is broken, as in FaultSite
};

/// A call at which a fault of this kind can be seeded.
struct FaultSite {
  FaultKind kind;
  std::string site;
};

const char* fault_name(FaultKind kind);

}  // namespace uvit::cuda::emulator
