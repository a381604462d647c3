#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"

namespace uvit {

/// Which block runs which attention kind, in running order: in.0 ... in.k, mid, out.0 ... out.k: 2 * (depth / 2) + 1 entries.
struct AttentionPlan {
  std::vector<std::string> kinds;
  std::int64_t blocks_a_side() const { return static_cast<std::int64_t>(kinds.size()) / 2; }
  const std::string& in(std::int64_t i) const { return kinds[static_cast<std::size_t>(i)]; }
  const std::string& mid() const { return kinds[kinds.size() / 2]; }
  const std::string& out(std::int64_t i) const { return kinds[kinds.size() / 2 + 1 + static_cast<std::size_t>(i)]; }
};

/// "in.0", ..., "mid", ..., "out.k" for a plan of n blocks.
std::string block_name(std::size_t block, std::size_t blocks);

/// The plan that config.attention, softmax_blocks and depth describe. Throws Error for an unknown kind or block name, or a list of the wrong length.
/// One kind with softmax_blocks = ["first", "last"] is the official placement of U-ViC: softmax in the first in-block and the last out-block.
AttentionPlan make_plan(const ModelConfig& config);

/// One line a block: name, kind, and what runs it: "fused" (on a GPU "fused, cuda sm_90"), "eager", or why the back end "fused" leaves it to plain
/// ATen operations. Runs of equal blocks are folded ("in.1 - in.5"). @param precision fp32, bf16 or fp16; @param device cpu or cuda
std::string describe_plan(const AttentionPlan& plan, const ModelConfig& model, const std::string& precision, const std::string& device);

}  // namespace uvit
