// A block that is run again in backward gives the gradients of one that kept everything, to the last bit.
#include <torch/torch.h>

#include "model/recompute.h"

#include <map>
#include <string>

#include "diffusion/autocast.h"
#include "model/uvit.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

UViTOptions options_of(const std::vector<std::string>& kinds) {
  UViTOptions o;
  o.height = o.width = 16;
  o.channels = 1;
  o.patch_size = 4;
  o.embed_dim = 32;
  o.depth = 4;
  o.num_heads = 4;
  o.label_rows = 3;
  o.plan.kinds = kinds;
  return o;
}

/// Gradients of all parameters, and of the images as "x".
std::map<std::string, at::Tensor> gradients(const UViTOptions& options, std::int64_t recompute_every, bool bf16) {
  UViT model(options);
  model.initialise(5);
  model.set_recompute_every(recompute_every);
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(11);
  const at::Tensor x = at::randn({3, 1, 16, 16}, generator, at::TensorOptions().dtype(at::kFloat)).requires_grad_();
  const at::Tensor t = at::tensor({1.0F, 300.0F, 900.0F}), y = at::tensor({0, 2, 1}, at::kLong);
  at::Tensor out;
  {
    const AutocastGuard autocast(bf16 ? "bf16" : "fp32", at::kCPU);
    out = model.forward(x, t, y);
  }
  (out.to(at::kFloat) * at::arange(256, at::kFloat).view({1, 1, 16, 16})).sum().backward();
  std::map<std::string, at::Tensor> result = {{"x", x.grad()}};
  for (const auto& [name, parameter] : named_parameters(model)) result[name] = parameter.grad();
  return result;
}

}  // namespace

TEST_CASE("blocks that are run again in backward give the same gradients, bit for bit") {
  const std::vector<std::string> kinds = {"softmax", "cog", "dipole", "sda_weighted", "softmax"};
  for (const bool bf16 : {false, true}) {
    const auto kept = gradients(options_of(kinds), 0, bf16);
    for (const std::int64_t every : {1, 2, 5}) {
      const auto again = gradients(options_of(kinds), every, bf16);
      REQUIRE(again.size() == kept.size());
      for (const auto& [name, gradient] : kept) {
        INFO(name << ", every " << every << (bf16 ? ", bf16" : ", fp32"));
        REQUIRE(gradient.defined());
        CHECK(at::equal(again.at(name), gradient));
        CHECK(max_abs(gradient) > 0);
      }
    }
  }
}

TEST_CASE("what is recomputed is run once forward and once backward, and keeps its inputs alone") {
  int runs = 0;
  const at::Tensor weight = at::full({8}, 2.0F).requires_grad_(), x = at::arange(8, at::kFloat).requires_grad_();
  std::vector<bool> kept_graph;
  const auto body = [&](const std::vector<at::Tensor>& in) {
    ++runs;
    kept_graph.push_back(at::GradMode::is_enabled());
    return (in[0] * weight).square();
  };
  const at::Tensor out = recompute(body, {x, at::Tensor()});
  CHECK(runs == 1);
  out.sum().backward();
  CHECK(runs == 2);
  CHECK(kept_graph == std::vector<bool>{false, true});
  CHECK(at::equal(x.grad(), 8 * at::arange(8, at::kFloat)));           // d (2 x)^2 = 8 x
  CHECK(at::equal(weight.grad(), 4 * at::arange(8, at::kFloat).square()));  // d (w x)^2 = 2 w x^2
  const torch::NoGradGuard no_grad;
  CHECK_FALSE(recompute(body, {x, at::Tensor()}).requires_grad());
}
