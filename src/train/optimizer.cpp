#include <torch/torch.h>

#include "train/optimizer.h"

#include <array>

#include "core/name_table.h"
#include "train/adamw.h"
#include "train/muon.h"

namespace uvit {
namespace {

template <class Kind>
std::unique_ptr<Optimizer> make(const OptimizerConfig& config, NamedTensors parameters) {
  return std::make_unique<Kind>(config, std::move(parameters));
}

}  // namespace

std::span<const OptimizerRow> optimizer_table() {
  static const std::array<OptimizerRow, 2> table = {{
      {"adamw", "decoupled weight decay (the official one), arXiv:1711.05101", make<AdamW>},
      {"muon", "momentum made orthogonal, for the matrices of the blocks, AdamW for the rest, kellerjordan.github.io/posts/muon (2024)", make<Muon>},
  }};
  return table;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, NamedTensors parameters) {
  return find_row(optimizer_table(), "optimizer", config.name).make(config, std::move(parameters));
}

}  // namespace uvit
