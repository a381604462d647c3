#include "attention/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "attention/attention.h"
#include "attention/device.h"
#include "attention/operator.h"
#include "core/error.h"
#include "core/name_table.h"

namespace uvit {
namespace {

/// "in", "mid" or "out".
std::string side_of(std::size_t block, std::size_t blocks) {
  const std::string name = block_name(block, blocks);
  return name.substr(0, name.find('.'));
}

/// Sets the named blocks to softmax. "first" is the first in-block and "last" the last out-block, where there are any.
void keep_softmax(AttentionPlan& plan, const std::vector<std::string>& softmax_blocks) {
  const std::size_t blocks = plan.kinds.size();
  std::vector<std::string> names = {"first", "last"};
  for (std::size_t b = 0; b < blocks; ++b) names.push_back(block_name(b, blocks));
  for (const std::string& wanted : softmax_blocks) {
    const auto found = std::find(names.begin(), names.end(), wanted);
    if (found == names.end()) throw_unknown_name("block in model.softmax_blocks", wanted, names);
    if (wanted == "first" || wanted == "last") {
      if (blocks > 1) plan.kinds[wanted == "first" ? 0 : blocks - 1] = "softmax";
    } else {
      plan.kinds[static_cast<std::size_t>(found - names.begin()) - 2] = "softmax";
    }
  }
}

/// What runs blocks of this kind.
std::string backend_of(const std::string& kind_name, const ModelConfig& model, const std::string& precision, const std::string& device) {
  if (model.attention_backend != "fused") return model.attention_backend;
  const AttentionKind& kind = find_row(attention_kinds(), "attention kind", kind_name);
  const std::int64_t head_dim = model.embed_dim / model.num_heads;
  const at::ScalarType dtype = precision == "bf16" ? at::kBFloat16 : precision == "fp16" ? at::kHalf : at::kFloat;
  const std::string reason = plain_path_reason(device == "cpu" ? c10::kCPU : c10::kCUDA, dtype, head_dim, value_dim(kind, head_dim));
  if (!reason.empty()) return fmt::format("plain operations: {}", reason);
  return device == "cpu" ? "fused" : fmt::format("fused, {} {}", device, cuda_architecture());
}

}  // namespace

std::string block_name(std::size_t block, std::size_t blocks) {
  const std::size_t side = blocks / 2;
  if (block < side) return fmt::format("in.{}", block);
  return block == side ? "mid" : fmt::format("out.{}", block - side - 1);
}

AttentionPlan make_plan(const ModelConfig& config) {
  if (config.depth < 1) throw Error(fmt::format("model.depth is {}: it must be at least 1", config.depth));
  const std::size_t blocks = 2 * static_cast<std::size_t>(config.depth / 2) + 1;
  for (const std::string& kind : config.attention) find_row(attention_kinds(), "attention kind in model.attention", kind);
  AttentionPlan plan;
  if (config.attention.size() == 1) {
    plan.kinds.assign(blocks, config.attention[0]);
    keep_softmax(plan, config.softmax_blocks);
  } else if (config.attention.size() == blocks) {
    plan.kinds = config.attention;
  } else {
    throw Error(fmt::format("model.attention has {} entries: give one kind, or {} (one a block, in.0 ... mid ... out.k) for depth {}",
                            config.attention.size(), blocks, config.depth));
  }
  return plan;
}

std::string describe_plan(const AttentionPlan& plan, const ModelConfig& model, const std::string& precision, const std::string& device) {
  const std::size_t blocks = plan.kinds.size();
  std::string text;
  for (std::size_t first = 0; first < blocks;) {
    std::size_t last = first;
    while (last + 1 < blocks && plan.kinds[last + 1] == plan.kinds[first] && side_of(last + 1, blocks) == side_of(first, blocks)) ++last;
    const std::string name = first == last ? block_name(first, blocks) : block_name(first, blocks) + " - " + block_name(last, blocks);
    text += fmt::format("{:<16}{:<14}{}\n", name, plan.kinds[first], backend_of(plan.kinds[first], model, precision, device));
    first = last + 1;
  }
  return text;
}

}  // namespace uvit
