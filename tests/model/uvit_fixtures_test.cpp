#include <torch/torch.h>

#include <string>
#include <vector>

#include "io/pth.h"
#include "io/safetensors.h"
#include "model/uvit.h"
#include "support/fixtures.h"
#include "support/tensors.h"
#include "support/timestep_frequencies.h"
#include "support/uvit_cases.h"

using namespace uvit;
using namespace uvit::test;

namespace {

std::shared_ptr<UViT> load_case(const UViTCase& test, const std::string& suffix, at::ScalarType dtype) {
  auto model = std::make_shared<UViT>(test.options);
  const std::filesystem::path path = fixtures() / (test.name + suffix);
  load_parameters(*model, path.extension() == ".pth" ? read_pth_state_dict(path) : read_safetensors(path), path.filename().string());
  model->to(dtype);
  use_fixture_frequencies(*model);
  return model;
}

/// Output, loss, gradients of inputs and parameters in this dtype against the float64 reference. README of the fixtures: float64: 1e-9, gradients
/// relative to the tensor's maximum; float32: 2e-5 and 2e-5 relative, loss 2e-6 relative.
void check_case(const UViTCase& test, UViT& model, at::ScalarType dtype) {
  const bool wide = dtype == at::kDouble;
  const TensorFile io = read_safetensors(fixtures() / (test.name + "_io.safetensors"));
  const TensorFile gradients = read_safetensors(fixtures() / (test.name + "_grads_f64.safetensors"));
  const at::Tensor x = load_tensor(io, "in.x", dtype, true), t = to_torch(io.at("in.timesteps")), target = load_tensor(io, "in.target", dtype);
  at::Tensor y, context;
  if (test.options.label_rows > 0) y = to_torch(io.at("in.y"));
  if (test.options.context_dim > 0) context = load_tensor(io, "in.context", dtype, true);

  const at::Tensor out = model.forward(x, t, y, context);
  CHECK(out.scalar_type() == dtype);
  check_tensor("out", out, to_torch(io.at("out.f64")), wide ? 1e-9 : 2e-5);
  const at::Tensor loss = (out - target).square().mean(), reference_loss = to_torch(io.at("loss.f64"));
  check_tensor("loss", loss, reference_loss, (wide ? 1e-9 : 2e-6) * max_abs(reference_loss));

  model.zero_grad();
  loss.backward();
  const double gradient_share = wide ? 1e-9 : 2e-5;
  const auto check_gradient = [&](const std::string& name, const at::Tensor& gradient, const at::Tensor& reference) {
    REQUIRE(gradient.defined());
    check_tensor(name, gradient, reference, gradient_share * max_abs(reference));
  };
  check_gradient("grad_in.x", x.grad(), to_torch(io.at("grad_in.x.f64")));
  if (context.defined()) check_gradient("grad_in.context", context.grad(), to_torch(io.at("grad_in.context.f64")));
  for (const auto& [name, parameter] : named_parameters(model)) check_gradient(name, parameter.grad(), to_torch(gradients.at("grad." + name)));
}

}  // namespace

TEST_CASE("U-ViT and U-ViC agree with the official networks in float32 and float64, from .safetensors and .pth") {
  const std::vector<UViTCase> cases = uvit_cases();
  REQUIRE_FALSE(cases.empty());
  for (const UViTCase& test : cases) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      INFO(test.name << " " << c10::toString(dtype));
      const auto model = load_case(test, "_state.safetensors", dtype);
      const auto from_pth = load_case(test, "_nnet.pth", dtype);
      check_case(test, *model, dtype);
      const NamedTensors ours = named_parameters(*model), theirs = named_parameters(*from_pth);
      for (std::size_t i = 0; i < ours.size(); ++i) {
        INFO(ours[i].first);
        CHECK(at::equal(ours[i].second, theirs[i].second));
      }
    }
  }
}

TEST_CASE("parameters have the official names, order and number") {
  for (const UViTCase& test : uvit_cases()) {
    INFO(test.name);
    const UViT model(test.options);
    std::vector<std::string> names;
    for (const auto& [name, parameter] : named_parameters(model)) names.push_back(name);
    CHECK(names == test.parameter_order);
    CHECK(model.num_parameters() == test.num_parameters);
  }
}

TEST_CASE("timestep embedding agrees with the official one: to rounding with its frequencies, and as closely as float32 angles allow with ours") {
  const TensorFile file = read_safetensors(fixtures() / "uvit_timestep_embedding.safetensors");
  const std::string prefix = "emb_dim";
  std::size_t checked = 0;
  for (const auto& [name, tensor] : file.tensors) {
    if (!name.starts_with(prefix)) continue;
    const at::Tensor t = to_torch(file.at("timesteps")), reference = to_torch(tensor);
    const std::int64_t dim = std::stoll(name.substr(prefix.size()));
    check_tensor(name, timestep_embedding(t, fixture_frequencies(dim), dim), reference, 1e-6);
    check_tensor(name, timestep_embedding(t, dim), reference, 2e-4);
    ++checked;
  }
  CHECK(checked > 0);
}

TEST_CASE("un-patchify equals the official one exactly") {
  const TensorFile file = read_safetensors(fixtures() / "uvit_unpatchify.safetensors");
  const at::Tensor tokens = to_torch(file.at("tokens")), image = to_torch(file.at("image"));
  const std::int64_t patch_size = std::lround(std::sqrt(static_cast<double>(tokens.size(2) / image.size(1))));
  CHECK(at::equal(unpatchify(tokens, image.size(1), image.size(2), image.size(3), patch_size), image));
}
