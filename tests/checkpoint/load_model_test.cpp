#include <torch/torch.h>

#include <catch2/catch.hpp>

#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "core/hash.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

/// The configuration of the network that the optimizer fixtures were made with.
Config fixture_config() {
  const auto json = fixture_json("optim.json").at("config");
  Config config;
  config.data.image_size = {json.at("img_size").get<std::int64_t>()};
  config.data.channels = json.at("in_chans");
  config.model.patch_size = json.at("patch_size");
  config.model.embed_dim = json.at("embed_dim");
  config.model.depth = json.at("depth");
  config.model.num_heads = json.at("num_heads");
  config.model.mlp_ratio = json.at("mlp_ratio");
  config.model.qkv_bias = json.at("qkv_bias");
  config.model.mlp_time_embed = json.at("mlp_time_embed");
  return config;
}

void check_parameters(const UViT& model, const TensorFile& file, const std::string& prefix) {
  for (const auto& [name, parameter] : named_parameters(model)) {
    INFO(name);
    CHECK(at::equal(parameter, to_torch(file.at(prefix + name))));
  }
}

fs::path official() { return fixtures() / "optim_default_20.ckpt"; }

/// A run folder whose EMA weights are the fixture's averages, and whose weights are its final parameters.
fs::path save_fixture_run(const fs::path& run) {
  const LoadedModel raw = load_model(official(), false, fixture_config()), ema = load_model(official(), true, fixture_config());
  CheckpointState state;
  state.step = 20;
  state.config = fixture_config();
  state.plan = raw.model->options().plan;
  CheckpointTensors tensors;
  tensors.model = named_parameters(*raw.model);
  tensors.ema["0.9999"] = named_parameters(*ema.model);
  tensors.optimizer = {{"step", torch::tensor(20, torch::kInt64)}};
  return save_checkpoint(run, state, tensors);
}

}  // namespace

TEST_CASE("an official checkpoint folder and its files load as they are") {
  const TensorFile reference = read_safetensors(fixtures() / "optim_default.safetensors");
  const LoadedModel ema = load_model(official(), true, fixture_config());
  check_parameters(*ema.model, reference, "ema.");
  CHECK(ema.weights == "nnet_ema.pth");
  CHECK(ema.weights_hash == sha256_of_file(official() / "nnet_ema.pth"));
  CHECK(ema.step == -1);
  check_parameters(*load_model(official(), false, fixture_config()).model, reference, "final.");
  check_parameters(*load_model(official() / "nnet.pth", true, fixture_config()).model, reference, "final.");
}

TEST_CASE("a run folder, a step folder and a weight file name the same model") {
  const TensorFile reference = read_safetensors(fixtures() / "optim_default.safetensors");
  const ScratchFolder run;
  const fs::path step_folder = save_fixture_run(run.path());
  for (const fs::path& path : {run.path(), step_folder, run.path() / "checkpoints/latest"}) {
    INFO(path);
    const LoadedModel loaded = load_model(path);
    check_parameters(*loaded.model, reference, "ema.");
    CHECK(loaded.weights == "ema_0.9999");
    CHECK(loaded.step == 20);
    CHECK(loaded.weights_hash == sha256_of_file(step_folder / "ema_0.9999.safetensors"));
  }
  const LoadedModel raw = load_model(run.path(), false);
  check_parameters(*raw.model, reference, "final.");
  CHECK(raw.weights == "model");
  CHECK(load_model(step_folder / "model.safetensors").step == 20);  // its state.json lies beside it

  const ScratchFolder elsewhere;
  fs::copy_file(step_folder / "model.safetensors", elsewhere / "bare.safetensors");
  check_parameters(*load_model(elsewhere / "bare.safetensors", true, fixture_config()).model, reference, "final.");
}

TEST_CASE("what is no checkpoint, or lacks its configuration, gets one clear line") {
  const ScratchFolder folder;
  CHECK(error_of([&] { load_model(folder / "nothing"); }).find("no such checkpoint") != std::string::npos);
  CHECK(error_of([&] { load_model(folder.path()); }).find("holds no checkpoint") != std::string::npos);
  CHECK(error_of([&] { load_model(official() / "nnet.pth"); }).find("configuration") != std::string::npos);
  write_file(folder / "weights.bin", std::string_view("0123456789"));
  CHECK(error_of([&] { load_model(folder / "weights.bin", true, fixture_config()); }).find("weights.bin") != std::string::npos);
  write_file(folder / "weights.safetensors", std::string_view("0123456789"));
  CHECK(error_of([&] { load_model(folder / "weights.safetensors", true, fixture_config()); }).find("weights.safetensors") != std::string::npos);
  write_file(folder / "weights.pth", std::string_view("0123456789"));
  CHECK(error_of([&] { load_model(folder / "weights.pth", true, fixture_config()); }).find("weights.pth") != std::string::npos);
  CHECK(error_of([&] { load_model(official() / "optimizer.pth", true, fixture_config()); }).find("optimizer.pth") != std::string::npos);
  save_fixture_run(folder.path());
  CHECK(error_of([&] { load_model(folder.path(), true, fixture_config()); }).find("configuration") != std::string::npos);
}

TEST_CASE("weights of another shape name the parameter and both shapes") {
  Config wider = fixture_config();
  wider.model.mlp_ratio *= 2;
  const std::string message = error_of([&] { load_model(official(), true, wider); });
  CHECK(message.find("in_blocks.0.mlp.fc1.weight") != std::string::npos);
  CHECK(message.find("[128, 32]") != std::string::npos);
  CHECK(message.find("[256, 32]") != std::string::npos);
}
