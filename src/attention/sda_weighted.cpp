#include <torch/torch.h>

#include "attention/attention.h"

namespace uvit {
namespace {

/// w_plus softmax(s) v - w_minus softmax(-s) v. State dict beside the official names: w_plus, w_minus.
class SdaWeighted : public Attention {
 public:
  explicit SdaWeighted(const AttentionOptions& options) : Attention(options) {
    w_plus_ = register_parameter("w_plus", torch::ones({options.num_heads}));
    w_minus_ = register_parameter("w_minus", torch::ones({options.num_heads}));
  }
};

}  // namespace

std::shared_ptr<Attention> make_sda_weighted(const AttentionOptions& options) { return std::make_shared<SdaWeighted>(options); }

}  // namespace uvit
