#include <torch/torch.h>

#include "checkpoint/official.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "io/pth.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

fs::path official() { return fixtures() / "optim_default_20.ckpt"; }

/// The configuration of the run "default" of the optimizer fixtures.
Config fixture_config() {
  const auto json = fixture_json("optim.json").at("config");
  Config config;
  config.data.image_size = {json.at("img_size").get<std::int64_t>()};
  config.data.channels = json.at("in_chans");
  config.model.patch_size = json.at("patch_size");
  config.model.embed_dim = json.at("embed_dim");
  config.model.depth = json.at("depth");
  config.model.num_heads = json.at("num_heads");
  config.train.batch_size = 4;
  config.train.threads = 1;
  return config;
}

void check_equal_values(const PthValue& ours, const PthValue& theirs) {
  REQUIRE(ours.value.index() == theirs.value.index());
  if (const auto* tensor = std::get_if<HostTensor>(&ours.value)) {
    const auto& other = std::get<HostTensor>(theirs.value);
    CHECK(tensor->dtype == other.dtype);
    CHECK(tensor->shape == other.shape);
    CHECK((tensor->data == other.data));
  } else if (const auto* list = std::get_if<PthValue::List>(&ours.value)) {
    const auto& other = std::get<PthValue::List>(theirs.value);
    REQUIRE(list->size() == other.size());
    for (std::size_t i = 0; i < list->size(); ++i) check_equal_values((*list)[i], other[i]);
  } else if (const auto* dict = std::get_if<PthValue::Dict>(&ours.value)) {
    for (const auto& [key, value] : *dict) {  // theirs may know more keys, of other versions of torch
      if (const auto* name = std::get_if<std::string>(&key.value)) {
        INFO(*name);
        check_equal_values(value, theirs.at(*name));
      } else {
        bool found = false;
        for (const auto& [other_key, other] : std::get<PthValue::Dict>(theirs.value))
          if (std::get<std::int64_t>(other_key.value) == std::get<std::int64_t>(key.value)) {
            check_equal_values(value, other);
            found = true;
          }
        CHECK(found);
      }
    }
  } else if (const auto* real = std::get_if<double>(&ours.value)) {
    CHECK(*real == Approx(std::get<double>(theirs.value)).epsilon(1e-14));
  } else if (const auto* integer = std::get_if<std::int64_t>(&ours.value)) {
    CHECK(*integer == std::get<std::int64_t>(theirs.value));
  } else if (const auto* flag = std::get_if<bool>(&ours.value)) {
    CHECK(*flag == std::get<bool>(theirs.value));
  } else {
    CHECK(std::holds_alternative<std::monostate>(ours.value));
  }
}

}  // namespace

TEST_CASE("an official checkpoint folder becomes a run's checkpoint and comes back, every tensor bit-equal") {
  REQUIRE(is_official_checkpoint(official()));
  const auto [state, tensors] = load_official_checkpoint(official(), fixture_config());
  CHECK(state.step == 20);
  CHECK(state.images_seen == 80);
  const TensorFile reference = read_safetensors(fixtures() / "optim_default.safetensors");
  for (const auto& [name, parameter] : tensors.model) CHECK(at::equal(parameter, to_torch(reference.at("final." + name))));
  for (const auto& [name, parameter] : tensors.ema.at("0.9999")) CHECK(at::equal(parameter, to_torch(reference.at("ema." + name))));

  const ScratchFolder run;
  save_checkpoint(run / "run", state, tensors);
  const auto [again, loaded] = load_checkpoint(find_step_folder(run / "run"));
  save_official_checkpoint(run / "20.ckpt", again, loaded);
  for (const char* file : {"nnet.pth", "nnet_ema.pth", "optimizer.pth", "lr_scheduler.pth", "step.pth"}) {
    INFO(file);
    check_equal_values(read_pth(run / "20.ckpt" / file), read_pth(official() / file));
  }
  CHECK(error_of([&, &kept = again, &all = loaded] { save_official_checkpoint(run / "20.ckpt", kept, all); }).find("exists already") != std::string::npos);
}

TEST_CASE("PyTorch reads the folder that we write, and its AdamW and LambdaLR take the states", "[python]") {
  const fs::path source = UVIT_SOURCE_DIR, python = source / ".venv/bin/python";
  if (!fs::exists(python) || std::system(fmt::format("'{}' -c 'import torch, numpy' 2>/dev/null", python.string()).c_str()) != 0) {
    WARN("skipped: .venv/bin/python with torch and numpy was not found");
    return;
  }
  const ScratchFolder folder;
  const auto [state, tensors] = load_official_checkpoint(official(), fixture_config());
  save_official_checkpoint(folder / "20.ckpt", state, tensors);
  CHECK(std::system(fmt::format("'{}' '{}' '{}' '{}'", python.string(), (source / "tests/checkpoint/read_official.py").string(),
                                (folder / "20.ckpt").string(), official().string())
                        .c_str()) == 0);
}

TEST_CASE("a configuration that contradicts the official checkpoint is refused with the key") {
  const auto refused = [](auto change) {
    Config config = fixture_config();
    change(config);
    return error_of([&] { load_official_checkpoint(official(), config); });
  };
  CHECK(refused([](Config& c) { c.optimizer.lr = 3e-4; }).find("optimizer.lr = 0.0002") != std::string::npos);
  CHECK(refused([](Config& c) { c.optimizer.betas = {0.99, 0.99}; }).find("optimizer.betas") != std::string::npos);
  CHECK(refused([](Config& c) { c.optimizer.weight_decay = 0; }).find("optimizer.weight_decay") != std::string::npos);
  CHECK(refused([](Config& c) { c.train.ema_decay = {0.9, 0.99}; }).find("train.ema_decay") != std::string::npos);
  CHECK(refused([](Config& c) { c.model.embed_dim = 64; }).find("nnet.pth") != std::string::npos);
}

TEST_CASE("an official checkpoint that lacks a file, or whose files disagree, is refused by name") {
  const ScratchFolder folder;
  const fs::path copy = folder / "20.ckpt";
  fs::copy(official(), copy);
  fs::permissions(copy, fs::perms::owner_all);
  fs::remove(copy / "step.pth");
  CHECK_FALSE(is_official_checkpoint(copy));
  CHECK(error_of([&] { load_official_checkpoint(copy, fixture_config()); }).find("step.pth") != std::string::npos);
  write_pth(copy / "step.pth", {std::int64_t{21}});
  CHECK(error_of([&] { load_official_checkpoint(copy, fixture_config()); }).find("at step 20") != std::string::npos);
  write_pth(copy / "step.pth", {std::string("twenty")});
  CHECK(error_of([&] { load_official_checkpoint(copy, fixture_config()); }).find("no step number") != std::string::npos);
}
