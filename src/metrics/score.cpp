#include <torch/torch.h>

#include "metrics/score.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "metrics/feature_set.h"

namespace uvit {

double class_agreement(FeatureNetwork& network, const std::vector<Image>& images, const std::vector<std::int64_t>& labels) {
  if (images.empty() || images.size() != labels.size()) {
    throw Error(fmt::format("class agreement needs one label an image, and has {} images and {} labels", images.size(), labels.size()));
  }
  Wanted wanted;
  wanted.rows = {OutputKind::logits};
  const at::Tensor classes = collect_features(network, memory_source(images), wanted).rows.at(OutputKind::logits).argmax(1);
  std::int64_t agreed = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) agreed += classes[static_cast<std::int64_t>(i)].item<std::int64_t>() == labels[i];
  return static_cast<double>(agreed) / static_cast<double>(images.size());
}

std::string format_score(const Score& score) {
  std::string line = fmt::format("{} = {:.6g}", score.metric, score.value);
  if (score.interval) line += fmt::format(" [{:.6g}, {:.6g}]", score.interval->low, score.interval->high);
  line += "  (";
  const char* separator = "";
  for (const auto& [key, value] : score.recipe) {
    line += fmt::format("{}{} {}", separator, key, key.ends_with("hash") ? value.substr(0, 12) : value);
    separator = ", ";
  }
  return line + ")";
}

void append_score(const std::string& path, const Score& score) {
  const std::filesystem::path file = std::filesystem::is_directory(path) ? std::filesystem::path(path) / "scores.jsonl" : std::filesystem::path(path);
  nlohmann::ordered_json line = {{"metric", score.metric}, {"value", score.value}};
  if (score.interval) line["interval"] = {score.interval->low, score.interval->high};
  line["recipe"] = score.recipe;
  append_line(file, line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace uvit
