#include <torch/torch.h>

#include <array>

#include "attention/attention.h"
#include "attention/eager.h"
#include "core/name_table.h"

namespace uvit {
namespace {

std::shared_ptr<Attention> make_plain(const AttentionOptions& options) { return std::make_shared<Attention>(options); }

}  // namespace

std::span<const AttentionKind> attention_kinds() {
  static const std::array<AttentionKind, 2> table = {{
      {"softmax", "softmax(s) v, Vaswani et al. 2017", make_plain, softmax_weights},
      {"cog", "[sign(s) * softmax(|s|)] v, arXiv:2411.07176", make_plain, cog_weights},
  }};
  return table;
}

std::shared_ptr<Attention> make_attention(const AttentionOptions& options) {
  return find_row(attention_kinds(), "attention kind", options.kind).make(options);
}

}  // namespace uvit
