#include <torch/torch.h>

#include <catch2/catch.hpp>
#include <functional>
#include <set>

#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "io/safetensors.h"
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
  config.model.attention = {"cog"};
  config.data.image_size = {8, 12};
  config.data.num_classes = 3;
  config.diffusion.label_dropout = 0.1;
  config.train.ema_decay = {0.99, 0.9};
  config.train.seed = 9007199254740993u;  // no double holds it
  return config;
}

NamedTensors plus(const NamedTensors& tensors, double value) {
  NamedTensors sum;
  for (const auto& [name, tensor] : tensors) sum.emplace_back(name, tensor.detach() + value);
  return sum;
}

/// A saved checkpoint whose EMA weights and moments differ from the weights.
struct Saved {
  explicit Saved(const fs::path& run, std::int64_t step = 7) : model(make_uvit_options(small_config())) {
    model.initialise(3);
    state.step = step;
    state.images_seen = 128 * step;
    state.config = small_config();
    state.plan = model.options().plan;
    state.eval_loss = 0.1 + 0.2;
    state.class_names = {"coat", "bag", "Boot \"x\""};
    state.threads = 2;
    state.loss_sum = 1.0 / 3;
    state.loss_count = 3;
    tensors.model = named_parameters(model);
    tensors.ema["0.99"] = plus(tensors.model, 1);
    tensors.ema["0.9"] = plus(tensors.model, 2);
    tensors.optimizer = {{"exp_avg.norm.weight", torch::full({16}, 0.5)}, {"step", torch::tensor(step, torch::kInt64)}};
    folder = save_checkpoint(run, state, tensors);
  }
  UViT model;
  CheckpointState state;
  CheckpointTensors tensors;
  fs::path folder;
};

void check_equal(const NamedTensors& a, const NamedTensors& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(a[i].first);
    CHECK(a[i].first == b[i].first);
    CHECK(a[i].second.scalar_type() == b[i].second.scalar_type());
    CHECK(at::equal(a[i].second, b[i].second));
  }
}

void replace_bytes(const fs::path& path, const std::function<void(std::string&)>& change) {
  std::string bytes = read_file(path);
  change(bytes);
  write_file(path, bytes);
}

}  // namespace

TEST_CASE("a checkpoint gives back what was saved, bit for bit") {
  const ScratchFolder run;
  const Saved saved(run.path());
  CHECK(saved.folder == run.path() / "checkpoints/step-7");
  const auto [state, tensors] = load_checkpoint(saved.folder);
  CHECK(state.step == 7);
  CHECK(state.images_seen == 7 * 128);
  CHECK(state.eval_loss == saved.state.eval_loss);
  CHECK(state.loss_sum == saved.state.loss_sum);
  CHECK(state.loss_count == 3);
  CHECK(state.threads == 2);
  CHECK(state.class_names == saved.state.class_names);
  CHECK(state.plan.kinds == saved.state.plan.kinds);
  CHECK(to_toml(state.config) == to_toml(saved.state.config));
  check_equal(tensors.model, saved.tensors.model);
  check_equal(tensors.optimizer, saved.tensors.optimizer);
  REQUIRE(tensors.ema.size() == 2);
  check_equal(tensors.ema.at("0.99"), saved.tensors.ema.at("0.99"));
  check_equal(tensors.ema.at("0.9"), saved.tensors.ema.at("0.9"));
}

TEST_CASE("a held-out loss that was not taken stays so") {
  const ScratchFolder run;
  Saved saved(run.path());
  saved.state.eval_loss = -1;
  CHECK(load_state(save_checkpoint(run.path(), saved.state, saved.tensors)).eval_loss < 0);
}

TEST_CASE("saving the same step again replaces it and leaves nothing else behind") {
  const ScratchFolder run;
  Saved saved(run.path());
  fs::create_directories(run.path() / "checkpoints/step-7.tmp");  // what a crash left
  saved.state.images_seen = 1;
  save_checkpoint(run.path(), saved.state, saved.tensors);
  CHECK(load_state(saved.folder).images_seen == 1);
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(run.path() / "checkpoints")) names.insert(entry.path().filename().string());
  CHECK(names == std::set<std::string>{"step-7", "latest"});
}

TEST_CASE("latest follows the newest save, by a relative link") {
  const ScratchFolder run;
  const Saved first(run.path(), 9), second(run.path(), 10);
  CHECK(fs::read_symlink(run.path() / "checkpoints/latest") == "step-10");
  CHECK(find_step_folder(run.path()).filename() == "step-10");
  CHECK(find_step_folder(run.path() / "checkpoints/step-9").filename() == "step-9");
  CHECK(find_step_folder(run.path() / "checkpoints/latest").filename() == "step-10");

  SECTION("a run folder that was moved still has it") {
    const ScratchFolder other;
    fs::rename(run.path() / "checkpoints", other.path() / "checkpoints");
    CHECK(load_state(find_step_folder(other.path())).step == 10);
  }
  SECTION("without the link the folder with the largest number counts") {
    fs::remove(run.path() / "checkpoints/latest");
    CHECK(find_step_folder(run.path()).filename() == "step-10");
  }
}

TEST_CASE("pruning keeps the newest ones, latest and best") {
  const ScratchFolder run;
  std::vector<fs::path> folders;
  for (std::int64_t step : {1, 2, 3, 10, 20}) folders.push_back(Saved(run.path(), step).folder);
  link_checkpoint(run.path(), "best", folders[1]);
  fs::create_directories(run.path() / "checkpoints/step-4.tmp");  // what a crash left
  prune_checkpoints(run.path(), 0);
  CHECK_FALSE(fs::exists(run.path() / "checkpoints/step-4.tmp"));
  for (const fs::path& folder : folders) CHECK(fs::exists(folder));
  prune_checkpoints(run.path(), 2);
  std::vector<bool> kept;
  for (const fs::path& folder : folders) kept.push_back(fs::exists(folder));
  CHECK(kept == std::vector<bool>{false, true, false, true, true});
  CHECK(load_state(run.path() / "checkpoints/best").step == 2);
}

TEST_CASE("damage is found and named") {
  const ScratchFolder run;
  const Saved saved(run.path());
  const fs::path model = saved.folder / "model.safetensors", state = saved.folder / "state.json";
  const auto message = [&] { return error_of([&] { load_checkpoint(saved.folder); }); };

  SECTION("one flipped bit names file and tensor") {
    const auto tensors = read_safetensors(model).tensors;
    const std::string victim = "mid_block.mlp.fc1.weight";
    const HostTensor original = read_safetensors(model).at(victim);
    replace_bytes(model, [&](std::string& bytes) {
      const std::string_view data(reinterpret_cast<const char*>(original.data.data()), original.data.size());
      const std::size_t place = bytes.find(data);
      REQUIRE(place != std::string::npos);
      bytes[place + 5] = static_cast<char>(bytes[place + 5] ^ 4);
    });
    const std::string text = message();
    CHECK(text.find(victim) != std::string::npos);
    CHECK(text.find(model.string()) != std::string::npos);
    CHECK(error_of([&] { load_model(saved.folder, false); }).find(victim) != std::string::npos);
    CHECK(load_model(saved.folder).weights == "ema_0.99");  // its own file is sound
  }
  SECTION("a truncated file") {
    fs::resize_file(model, fs::file_size(model) / 2);
    CHECK(message().find(model.string()) != std::string::npos);
  }
  SECTION("a missing file") {
    fs::remove(model);
    CHECK(message().find(model.string()) != std::string::npos);
  }
  SECTION("a tensor file of another checkpoint") {
    fs::copy_file(saved.folder / "optimizer.safetensors", model, fs::copy_options::overwrite_existing);
    CHECK(message().find("damaged") != std::string::npos);
  }
  SECTION("state.json that is no JSON") {
    replace_bytes(state, [](std::string& bytes) { bytes.resize(bytes.size() / 2); });
    CHECK(message().find(state.string()) != std::string::npos);
  }
  SECTION("state.json of another program") {
    write_file(state, std::string_view("{\"step\": 3, \"format\": \"pt\"}"));
    CHECK(message().find("no checkpoint of uvit") != std::string::npos);
  }
  SECTION("state.json that is no object") {
    write_file(state, std::string_view("[1, 2]"));
    CHECK(message().find("no checkpoint of uvit") != std::string::npos);
  }
  SECTION("a later format") {
    replace_bytes(state, [](std::string& bytes) { bytes.replace(bytes.find("\"format\": 1"), 11, "\"format\": 9"); });
    CHECK(message().find("format 9") != std::string::npos);
  }
  SECTION("a key that is gone") {
    replace_bytes(state, [](std::string& bytes) { bytes.replace(bytes.find("\"images_seen\""), 13, "\"images_sown\""); });
    CHECK(message().find("images_seen") != std::string::npos);
  }
  SECTION("no state.json") {
    fs::remove(state);
    CHECK(message().find("no state.json") != std::string::npos);
  }
}

TEST_CASE("a checkpoint that cannot be written leaves the earlier one as it was") {
  const ScratchFolder run;
  const Saved saved(run.path());
  Saved next(run.path(), 8);
  next.state.step = 9;

  SECTION("no space left") {
    std::string text;
    {
      const FileSizeLimit limit(8192);
      text = error_of([&] { save_checkpoint(run.path(), next.state, next.tensors); });
    }
    CHECK(text.find("step-9") != std::string::npos);
  }
  SECTION("a file where the folder should be") {
    const ScratchFolder other;
    write_file(other / "run", std::string_view("no folder"));
    CHECK(error_of([&] { save_checkpoint(other / "run", next.state, next.tensors); }).find((other / "run").string()) != std::string::npos);
  }
  CHECK_FALSE(fs::exists(run.path() / "checkpoints/step-9"));
  CHECK_FALSE(fs::exists(run.path() / "checkpoints/step-9.tmp"));
  CHECK(load_checkpoint(find_step_folder(run.path())).first.step == 8);
}
