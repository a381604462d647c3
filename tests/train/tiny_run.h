#pragma once
#include <spdlog/spdlog.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "train/trainer.h"

namespace uvit::test {

/// Writes one split of an IDX dataset: grey images of side x side pixels, image i with a bright bar whose place is its class i % classes.
inline void write_idx_split(const std::filesystem::path& folder, const std::string& split, int count, int side, int classes) {
  const auto big_endian = [](std::uint32_t value) {
    return std::string{static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8), static_cast<char>(value)};
  };
  const auto number = [&](int value) { return big_endian(static_cast<std::uint32_t>(value)); };
  std::string images = big_endian(0x803), labels = big_endian(0x801);
  for (int length : {count, side, side}) images += number(length);
  labels += number(count);
  for (int i = 0; i < count; ++i) {
    labels += static_cast<char>(i % classes);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) images += static_cast<char>(x % classes == i % classes ? 200 + i % 50 : (7 * y + 3 * i) % 60);
  }
  write_file(folder / (split + "-images-idx3-ubyte"), images);
  write_file(folder / (split + "-labels-idx1-ubyte"), labels);
}

/// A run of seconds: 8 x 8 pixels, 3 classes, one in-block, one mid and one out-block of width 16, everything that training can do switched on.
inline Config tiny_config(const std::filesystem::path& data) {
  spdlog::set_level(spdlog::level::warn);  // dozens of runs would each print their plan
  write_idx_split(data, "train", 23, 8, 3);
  write_idx_split(data, "t10k", 10, 8, 3);
  Config config;
  config.model.patch_size = 4;
  config.model.embed_dim = 16;
  config.model.depth = 2;
  config.model.num_heads = 2;
  config.model.attention = {"cog"};
  config.diffusion.label_dropout = 0.2;
  config.data.dataset = "idx";
  config.data.path = data.string();
  config.data.image_size = {8};
  config.data.num_classes = 3;
  config.data.flip = true;
  config.optimizer.lr = 1e-3;
  config.optimizer.warmup_steps = 3;
  config.optimizer.clip_grad_norm = 1.0;
  config.train.steps = 8;
  config.train.batch_size = 6;
  config.train.seed = 11;
  config.train.ema_decay = {0.9, 0.99};
  config.train.threads = 1;
  config.train.log_every = 2;
  config.train.eval_every = 4;
  config.train.eval_images = 7;
  config.train.checkpoint_every = 4;
  config.sample.num_steps = 3;
  config.sample.batch_size = 4;
  config.sample.grid = {2, 3};
  return config;
}

/// The lines of RUN/metrics.jsonl, without what hangs on the clock.
inline std::vector<nlohmann::json> metrics_without_times(const std::filesystem::path& run) {
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  std::vector<nlohmann::json> metrics;
  for (std::string line; std::getline(lines, line);) {
    nlohmann::json json = nlohmann::json::parse(line);
    for (const char* key : {"images_per_second", "data_wait", "seconds"}) REQUIRE(json.erase(key) == 1);
    metrics.push_back(json);
  }
  return metrics;
}

}  // namespace uvit::test
