#include <torch/torch.h>

#include "model/autoencoder_kl.h"

#include <algorithm>

#include "checkpoint/autoencoder_file.h"
#include "core/atomic_file.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

TensorFile fixture_state() { return read_safetensors(fixtures() / "vae_state.safetensors"); }
TensorFile fixture_io() { return read_safetensors(fixtures() / "vae_io.safetensors"); }

void replace_first(std::string& text, const std::string& what, const std::string& with) {
  const std::size_t at = text.find(what);
  if (at != std::string::npos) text.replace(at, what.size(), with);
}

/// The name that diffusers gives to an official one; written from its module tree, apart from the code under test.
std::string diffusers_name(std::string name, bool old_attention) {
  for (int level = 0; level < 4; ++level) {
    replace_first(name, "encoder.down." + std::to_string(level) + ".", "encoder.down_blocks." + std::to_string(level) + ".");
    replace_first(name, "decoder.up." + std::to_string(level) + ".", "decoder.up_blocks." + std::to_string(3 - level) + ".");
  }
  replace_first(name, "mid.block_1.", "mid_block.resnets.0.");
  replace_first(name, "mid.block_2.", "mid_block.resnets.1.");
  replace_first(name, "mid.attn_1.", "mid_block.attentions.0.");
  replace_first(name, ".block.", ".resnets.");
  replace_first(name, ".downsample.", ".downsamplers.0.");
  replace_first(name, ".upsample.", ".upsamplers.0.");
  replace_first(name, "nin_shortcut", "conv_shortcut");
  replace_first(name, "norm_out", "conv_norm_out");
  if (name.find("attentions.") == std::string::npos) return name;
  replace_first(name, ".norm.", ".group_norm.");
  replace_first(name, ".q.", old_attention ? ".query." : ".to_q.");
  replace_first(name, ".k.", old_attention ? ".key." : ".to_k.");
  replace_first(name, ".v.", old_attention ? ".value." : ".to_v.");
  replace_first(name, ".proj_out.", old_attention ? ".proj_attn." : ".to_out.0.");
  return name;
}

TensorFile as_diffusers(bool old_attention) {
  TensorFile file = fixture_state();
  file.metadata.clear();
  for (auto& [name, tensor] : file.tensors) {
    if (name.find(".attn_1.") != std::string::npos && tensor.shape.size() == 4) tensor.shape.resize(2);
    name = diffusers_name(name, old_attention);
  }
  return file;
}

void check_equal(const AutoencoderKL& a, const AutoencoderKL& b) {
  CHECK(a.options() == b.options());
  const NamedTensors ours = named_parameters(a), theirs = named_parameters(b);
  REQUIRE(ours.size() == theirs.size());
  for (std::size_t i = 0; i < ours.size(); ++i) {
    INFO(ours[i].first);
    CHECK(at::equal(ours[i].second, theirs[i].second));
  }
}

}  // namespace

TEST_CASE("the KL autoencoder agrees with the official one: moments, sampled latents, decoding") {
  const torch::NoGradGuard no_grad;
  const TensorFile io = fixture_io();
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const bool wide = dtype == at::kDouble;
    INFO(c10::toString(dtype));
    const auto vae = load_autoencoder(fixtures() / "vae_state.safetensors");
    CHECK(vae->options().scale_factor == 0.18215);
    vae->to(dtype);
    const auto budget = [&](const at::Tensor& reference) { return wide ? 1e-9 : 2e-5 * std::max(1.0, max_abs(reference)); };

    const at::Tensor moments = vae->moments(load_tensor(io, "x", dtype)), moments64 = to_torch(io.at("moments.f64"));
    check_tensor("moments", moments, moments64, budget(moments64));
    const at::Tensor noise = load_tensor(io, "noise", dtype), z64 = to_torch(io.at("z.f64"));
    check_tensor("z", vae->sample(moments, noise), z64, budget(z64));
    const at::Tensor decoded = to_torch(io.at("decode_of_z_f32.f64"));
    check_tensor("decode", vae->decode(load_tensor(io, "z.f32", dtype)), decoded, budget(decoded));
    const at::Tensor clamped = to_torch(io.at("clamp.z"));  // its largest value comes from exp(10), so float32 rounding is relative to that
    check_tensor("clamp", vae->sample(load_tensor(io, "clamp.moments", dtype), noise), clamped, 2e-6 * std::max(1.0, max_abs(clamped)));
  }
}

TEST_CASE("without noise the latent is the scaled mean, and noise is a function of seed and index alone") {
  const torch::NoGradGuard no_grad;
  const auto vae = load_autoencoder(fixtures() / "vae_state.safetensors", 0.5);
  const at::Tensor moments = to_torch(fixture_io().at("moments.f32"));
  CHECK(at::equal(vae->sample(moments, {}), 0.5 * moments.narrow(1, 0, 4)));
  const at::Tensor noise = latent_noise(1, 7, 4, 8, 8);
  CHECK(at::equal(noise, latent_noise(1, 7, 4, 8, 8)));
  CHECK_FALSE(at::equal(noise, latent_noise(1, 8, 4, 8, 8)));
  CHECK_FALSE(at::equal(noise, latent_noise(2, 7, 4, 8, 8)));
  CHECK(std::abs(noise.mean().item<double>()) < 0.25);
  CHECK(std::abs(noise.std().item<double>() - 1) < 0.2);
}

TEST_CASE("options are read from the shapes; official .pth, prefixed and diffusers' names (old and new attention) give the same autoencoder") {
  const ScratchFolder folder;
  const auto official = load_autoencoder(fixtures() / "vae_state.safetensors");
  CHECK(official->options().ch == 32);
  CHECK(official->options().ch_mult == std::vector<std::int64_t>{1, 1, 1, 2});
  CHECK(official->options().num_res_blocks == 1);
  CHECK(official->options().downscale() == 8);

  write_pth_state_dict(folder / "autoencoder_kl.pth", fixture_state());
  check_equal(*official, *load_autoencoder(folder / "autoencoder_kl.pth"));

  TensorFile prefixed = fixture_state();
  for (auto& [name, tensor] : prefixed.tensors) name = "first_stage_model." + name;
  prefixed.tensors.emplace_back("model.diffusion_model.out.bias", HostTensor{DType::f32, {1}, std::vector<std::byte>(4)});
  write_safetensors(folder / "prefixed.safetensors", prefixed);
  check_equal(*official, *load_autoencoder(folder / "prefixed.safetensors"));

  for (const bool old_attention : {true, false}) {
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", as_diffusers(old_attention));
    check_equal(*official, *load_autoencoder(folder.path()));
  }
  write_file(folder / "config.json", std::string_view(R"({"scaling_factor": 0.23})"));
  CHECK(load_autoencoder(folder.path())->options().scale_factor == 0.23);

  save_autoencoder(folder / "saved.safetensors", *load_autoencoder(folder.path()));
  CHECK(load_autoencoder(folder / "saved.safetensors")->options().scale_factor == 0.23);
}

TEST_CASE("Stable Diffusion's own widths have the official number of parameters, and attention levels survive a round trip") {
  const AutoencoderKL official{AutoencoderOptions{}};
  std::int64_t count = 0;
  for (const at::Tensor& parameter : official.parameters()) count += parameter.numel();
  CHECK(count == 83653863);  // as published for stabilityai/sd-vae-ft-mse and autoencoder_kl.pth

  AutoencoderOptions options;
  options.ch = 32;
  options.ch_mult = {1, 2};
  options.attention = {false, true};
  options.num_res_blocks = 1;
  options.in_channels = options.out_channels = 1;
  AutoencoderKL small(options);
  small.initialise(3);
  const ScratchFolder folder;
  save_autoencoder(folder / "small.safetensors", small);
  const auto loaded = load_autoencoder(folder / "small.safetensors");
  check_equal(small, *loaded);
  const torch::NoGradGuard no_grad;
  const at::Tensor z = loaded->sample(loaded->moments(torch::zeros({2, 1, 12, 8})), {});
  CHECK(z.sizes() == at::IntArrayRef({2, 4, 6, 4}));
  CHECK(loaded->decode(z).sizes() == at::IntArrayRef({2, 1, 12, 8}));
}

TEST_CASE("what does not fit the autoencoder gets one clear line") {
  const ScratchFolder folder;
  const torch::NoGradGuard no_grad;
  CHECK(error_of([&] { load_autoencoder(folder / "nothing.pth"); }).find("no such autoencoder") != std::string::npos);
  CHECK(error_of([&] { load_autoencoder(fixtures() / "optim_init_state.safetensors"); }).find("no KL autoencoder") != std::string::npos);
  TensorFile cut = fixture_state();
  std::erase_if(cut.tensors, [](const auto& item) { return item.first == "decoder.mid.block_1.conv1.bias"; });
  write_safetensors(folder / "cut.safetensors", cut);
  CHECK(error_of([&] { load_autoencoder(folder / "cut.safetensors"); }).find("decoder.mid.block_1.conv1.bias") != std::string::npos);
  const auto vae = load_autoencoder(fixtures() / "vae_state.safetensors");
  CHECK(error_of([&] { vae->moments(torch::zeros({1, 3, 20, 32})); }).find("multiples of 8") != std::string::npos);
  CHECK(error_of([&] { vae->moments(torch::zeros({1, 1, 32, 32})); }).find("[1, 1, 32, 32]") != std::string::npos);
  CHECK(error_of([&] { vae->decode(torch::zeros({1, 3, 4, 4})); }).find("latents") != std::string::npos);
  AutoencoderOptions narrow;
  narrow.ch = 48;
  CHECK(error_of([&] { AutoencoderKL{narrow}; }).find("multiple of 32") != std::string::npos);
}
