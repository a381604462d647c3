#include <torch/torch.h>

#include "checkpoint/stored_weights.h"

#include <catch2/catch.hpp>
#include <functional>

#include "checkpoint/official.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

Config small_config() {
  Config config;
  config.model.patch_size = 4;
  config.model.embed_dim = 16;
  config.model.depth = 2;
  config.model.num_heads = 2;
  config.data.image_size = {16, 12};
  config.data.channels = 1;
  config.data.num_classes = 3;
  return config;
}

Config with_every_switch() {
  Config config = small_config();
  config.model.qk_norm = config.model.rope = true;
  config.model.mlp = "swiglu";
  config.model.norm = "rms";
  config.model.register_tokens = 2;
  config.model.conditioning = "adaln_zero";
  config.model.align_dim = 5;
  config.model.align_block = 1;
  return config;
}

/// A run folder with one checkpoint of a network drawn from `seed`.
fs::path save_run(const fs::path& run, const Config& config, std::uint64_t seed) {
  UViT model(make_uvit_options(config));
  model.initialise(seed);
  CheckpointTensors tensors;
  tensors.model = tensors.ema["0.9999"] = named_parameters(model);
  CheckpointState state;
  state.step = 5;
  state.config = config;
  state.plan = model.options().plan;
  tensors.optimizer = {{"step", torch::tensor(5, torch::kInt64)}};
  return save_checkpoint(run, state, tensors);
}

}  // namespace

TEST_CASE("a network with every switch is saved and loaded as it was, its configuration with it") {
  const ScratchFolder run;
  const Config config = with_every_switch();
  const fs::path step_folder = save_run(run.path(), config, 3);
  const LoadedModel loaded = load_model(run.path());
  CHECK(loaded.config == config);
  const TensorFile saved = read_safetensors(step_folder / "model.safetensors");
  for (const auto& [name, parameter] : named_parameters(*loaded.model)) CHECK(at::equal(parameter, to_torch(saved.at(name))));
  CHECK(saved.find("in_blocks.0.attn.q_norm.weight"));
  CHECK(saved.find("mid_block.mlp.w12.weight"));
  CHECK(saved.find("out_blocks.0.adaLN_modulation.1.bias"));
  CHECK(saved.find("register_tokens"));
  CHECK(saved.find("projector.4.weight"));
}

TEST_CASE("training can start from weights of another image size: pos_embed is interpolated, everything else copied") {
  for (const bool every_switch : {false, true}) {
    const ScratchFolder run, elsewhere;
    const Config source = every_switch ? with_every_switch() : small_config();
    const TensorFile saved = read_safetensors(save_run(run.path(), source, 3) / "model.safetensors");
    Config config = source;
    config.data.image_size = {24, 20};
    UViT model(make_uvit_options(config));
    model.initialise(4);
    load_initial_weights(model, run.path());
    for (const auto& [name, parameter] : named_parameters(model)) {
      INFO(name);
      const at::Tensor before = to_torch(saved.at(name));
      CHECK(at::equal(parameter, name == "pos_embed" ? interpolate_pos_embed(before, 4, 3, 6, 5) : before));
    }
    // The same number of patches in another shape is another resolution too; the same shape is left alone.
    config.data.image_size = {12, 16};
    UViT turned(make_uvit_options(config));
    load_initial_weights(turned, run.path());
    const at::Tensor pos_embed = to_torch(saved.at("pos_embed"));
    CHECK(at::equal(named_parameters(turned).front().second, interpolate_pos_embed(pos_embed, 4, 3, 3, 4)));
    UViT same(make_uvit_options(source));
    load_initial_weights(same, run.path());
    CHECK(at::equal(named_parameters(same).front().second, pos_embed));
    // A file by itself says nothing of its image: 12 patches are no square.
    fs::copy_file(run.path() / "checkpoints/latest/model.safetensors", elsewhere / "bare.safetensors");
    config.data.image_size = {24, 20};
    UViT other(make_uvit_options(config));
    CHECK_THAT(error_of([&] { load_initial_weights(other, elsewhere / "bare.safetensors"); }), Catch::Contains("'pos_embed'"));
  }
  const ScratchFolder run, elsewhere;
  Config config = small_config();
  config.data.image_size = {16};
  const fs::path step_folder = save_run(run.path(), config, 3);
  fs::copy_file(step_folder / "model.safetensors", elsewhere / "bare.safetensors");
  config.data.image_size = {32, 8};
  UViT model(make_uvit_options(config));
  load_initial_weights(model, elsewhere / "bare.safetensors");
  const at::Tensor before = to_torch(read_safetensors(step_folder / "model.safetensors").at("pos_embed"));
  CHECK(at::equal(named_parameters(model).front().second, interpolate_pos_embed(before, 4, 4, 8, 2)));
}

TEST_CASE("weights that differ in more than resolution are refused with the parameter and both shapes") {
  const ScratchFolder run;
  save_run(run.path(), small_config(), 3);
  const auto refusal = [&](const std::function<void(Config&)>& change) {
    Config config = small_config();
    change(config);
    UViT model(make_uvit_options(config));
    return error_of([&] { load_initial_weights(model, run.path()); });
  };
  CHECK_THAT(refusal([](Config& c) { c.model.embed_dim = 32; }), Catch::Contains("'pos_embed'") && Catch::Contains("[1, 14, 16]") && Catch::Contains("[1, 14, 32]"));
  CHECK_THAT(refusal([](Config& c) { c.data.num_classes = 4; }), Catch::Contains("'label_emb.weight'") && Catch::Contains("[3, 16]") && Catch::Contains("[4, 16]"));
  CHECK_THAT(refusal([](Config& c) { c.data.num_classes = 0; }), Catch::Contains("another model"));
  CHECK_THAT(refusal([](Config& c) { c.model.qk_norm = true; }), Catch::Contains("q_norm.weight"));
}

TEST_CASE("official checkpoints are neither read into nor written from what the official code does not have") {
  const fs::path official = fixtures() / "optim_default_20.ckpt";
  const std::vector<std::pair<std::string, std::function<void(Config&)>>> switches = {
      {"model.qk_norm", [](Config& c) { c.model.qk_norm = true; }},
      {"model.rope", [](Config& c) { c.model.rope = true; }},
      {"model.mlp", [](Config& c) { c.model.mlp = "swiglu"; }},
      {"model.norm", [](Config& c) { c.model.norm = "rms"; }},
      {"model.register_tokens", [](Config& c) { c.model.register_tokens = 1; }},
      {"model.conditioning", [](Config& c) { c.model.conditioning = "adaln_zero"; }},
      {"model.align_dim", [](Config& c) { c.model.align_dim = 4; }},
      {"optimizer.name", [](Config& c) { c.optimizer.name = "muon"; }}};
  const ScratchFolder folder;
  for (const auto& [key, change] : switches) {
    CheckpointState state;
    state.config = small_config();
    change(state.config);
    CHECK_THAT(error_of([&] { load_official_checkpoint(official, state.config); }), Catch::Contains(key));
    CheckpointTensors tensors;
    tensors.ema["0.9999"] = {};
    CHECK_THAT(error_of([&] { save_official_checkpoint(folder / "out", state, tensors); }), Catch::Contains(key));
    CHECK_FALSE(fs::exists(folder / "out"));
  }
}
