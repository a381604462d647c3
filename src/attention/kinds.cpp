#include <torch/torch.h>

#include <array>

#include "attention/attention.h"
#include "core/name_table.h"

namespace uvit {
namespace {

using kernels::Kind;

std::shared_ptr<Attention> make_plain(const AttentionOptions& options) { return std::make_shared<Attention>(options); }

}  // namespace

std::span<const AttentionKind> attention_kinds() {
  static const std::array<AttentionKind, kernels::kKindCount> table = {{
      {"softmax", "softmax(s) v, Vaswani et al. 2017", make_plain, Kind::softmax},
      {"cog", "[sign(s) * softmax(|s|)] v, arXiv:2411.07176", make_plain, Kind::cog},
      {"sda", "[softmax(s) - softmax(-s)] v, arXiv:2606.04833", make_plain, Kind::sda},
      {"sda_weighted", "[a softmax(s) - b softmax(-s)] v with a, b per head, arXiv:2606.04833 (future directions)", make_sda_weighted,
       Kind::sda_weighted},
      {"dipole", "a softmax(s) v + b softmax(-s) v2 with a, b per head, github.com/ethansmith2000/DipoleAttention", make_dipole, Kind::dipole},
      {"differential", "RMSNorm([softmax(s1) - lambda softmax(s2)] v) (1 - lambda_init), heads in pairs, no qkv bias, arXiv:2410.05258",
       make_differential, Kind::diff},
      {"centered", "[softmax(s) - 1/n] v, arXiv:2306.01610", make_plain, Kind::centered},
      {"softpick", "[relu(e^s - 1) / (sum |e^s - 1| + 1e-8)] v, arXiv:2504.20966", make_plain, Kind::softpick},
      {"softmax1", "[e^s / (1 + sum e^s)] v, E. Miller, Attention is off by one, 2023", make_plain, Kind::softmax1},
      {"sigmoid", "sigmoid(s - log n) v, arXiv:2409.04431", make_plain, Kind::sigmoid},
  }};
  return table;
}

std::shared_ptr<Attention> make_attention(const AttentionOptions& options) {
  return find_row(attention_kinds(), "attention kind", options.kind).make(options);
}

std::int64_t value_dim(const AttentionKind& kind, std::int64_t head_dim) { return kernels::has_second_scores(kind.op) ? 2 * head_dim : head_dim; }

}  // namespace uvit
