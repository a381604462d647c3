#include <torch/torch.h>

#include <cmath>
#include <vector>

#include "attention/rms_norm.h"
#include "core/random.h"
#include "model/init.h"
#include "model/modulation.h"
#include "model/norm.h"
#include "model/uvit.h"

namespace uvit {
namespace {

/// Fills parameters from streams keyed by (seed, parameter name): a parameter's values depend on nothing else of the model.
class Initialiser {
 public:
  explicit Initialiser(std::uint64_t seed) : seed_(seed) {}

  void normal(const std::string& name, const at::Tensor& parameter, float std) {
    values_.resize(static_cast<std::size_t>(parameter.numel()));
    stream(name).fill_normal(values_);
    copy_to(parameter, std);
  }

  void uniform(const std::string& name, const at::Tensor& parameter, float bound) {
    values_.resize(static_cast<std::size_t>(parameter.numel()));
    stream(name).fill_uniform(values_, -bound, bound);
    copy_to(parameter, 1.0F);
  }

 private:
  RandomStream stream(const std::string& name) const { return {seed_, RandomPurpose::init, hash_name(name)}; }
  void copy_to(at::Tensor parameter, float factor) {
    parameter.copy_(at::from_blob(values_.data(), parameter.sizes(), at::TensorOptions().dtype(at::kFloat)).mul(factor));
  }

  std::uint64_t seed_;
  std::vector<float> values_;
};

/// The attention kinds' own parameters: weights of the heads 1, differential's lambda vectors N(0, 0.1).
void initialise_attention(Initialiser& init, const std::string& name, torch::nn::Module& module) {
  for (auto& item : module.named_parameters(false)) {
    if (item.key().starts_with("lambda_")) {
      init.normal(name + "." + item.key(), item.value(), 0.1F);
    } else if (item.key() == "w_plus" || item.key() == "w_minus") {
      item.value().fill_(1.0);
    }
  }
}

void initialise_module(Initialiser& init, const std::string& name, torch::nn::Module& module) {
  if (module.as<ZeroLinear>()) {
    for (at::Tensor& parameter : module.parameters(false)) parameter.zero_();
  } else if (auto* linear = module.as<torch::nn::Linear>()) {
    init.normal(name + ".weight", linear->weight, 0.02F);
    if (linear->bias.defined()) linear->bias.zero_();
  } else if (auto* conv = module.as<torch::nn::Conv2d>()) {
    // torch's default, kaiming uniform with a = sqrt(5): U(-b, b), b = 1 / sqrt(fan in), for weight and bias alike
    const float bound = 1.0F / std::sqrt(static_cast<float>(conv->weight[0].numel()));
    init.uniform(name + ".weight", conv->weight, bound);
    init.uniform(name + ".bias", conv->bias, bound);
  } else if (auto* embedding = module.as<torch::nn::Embedding>()) {
    init.normal(name + ".weight", embedding->weight, 1.0F);
  } else if (auto* norm = module.as<torch::nn::LayerNorm>()) {
    norm->weight.fill_(1.0);
    norm->bias.zero_();
  } else if (auto* group = module.as<torch::nn::GroupNorm>()) {
    group->weight.fill_(1.0);
    group->bias.zero_();
  } else if (module.as<Norm>() || module.as<RmsNorm>()) {
    for (auto& item : module.named_parameters(false)) item.value().fill_(item.key() == "weight" ? 1.0 : 0.0);
  } else {
    initialise_attention(init, name, module);
  }
}

}  // namespace

void initialise_modules(torch::nn::Module& root, std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  Initialiser init(seed);
  // Without the root itself: asking for it throws where no shared_ptr holds it.
  for (const auto& item : root.named_modules("", false)) initialise_module(init, item.key(), *item.value());
}

void UViT::initialise(std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  Initialiser init(seed);
  // The official truncation at +-2 is 100 standard deviations away: no draw ever meets it.
  init.normal("pos_embed", named_parameters(false)["pos_embed"], 0.02F);
  if (options_.register_tokens > 0) init.normal("register_tokens", named_parameters(false)["register_tokens"], 0.02F);
  initialise_modules(*this, seed);
  // Added to the embedding of time, whose values are small at first: DiT's 0.02 instead of a token's 1.
  if (options_.adaln_zero && options_.label_rows > 0) init.normal("label_emb.weight", named_parameters()["label_emb.weight"], 0.02F);
}

}  // namespace uvit
