#include <torch/torch.h>

#include "attention/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "attention/attention.h"
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
    throw Error(fmt::format("model.attention has {} entries: give one kind, or {} (one a block in running order, in.0 ... mid ... out.k) for depth {}",
                            config.attention.size(), blocks, config.depth));
  }
  return plan;
}

std::string describe_plan(const AttentionPlan& plan, const std::string& backend) {
  const std::size_t blocks = plan.kinds.size();
  std::string text;
  for (std::size_t first = 0; first < blocks;) {
    std::size_t last = first;
    while (last + 1 < blocks && plan.kinds[last + 1] == plan.kinds[first] && side_of(last + 1, blocks) == side_of(first, blocks)) ++last;
    const std::string name = first == last ? block_name(first, blocks) : block_name(first, blocks) + " - " + block_name(last, blocks);
    text += fmt::format("{:<16}{:<14}{}\n", name, plan.kinds[first], backend);
    first = last + 1;
  }
  return text;
}

}  // namespace uvit
