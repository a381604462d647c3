#include <torch/torch.h>

#include "metrics/score.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"

namespace uvit {
namespace {

constexpr std::int64_t kBatch = 500;  // images a network call

// Calls `use` with uint8 [n, C, H, W], n <= kBatch, for runs of images of one size.
void for_each_batch(std::int64_t count, const std::function<Image(std::int64_t)>& image, const std::function<void(const at::Tensor&)>& use) {
  std::vector<Image> waiting;
  const auto flush = [&] {
    if (waiting.empty()) return;
    const Image& first = waiting.front();
    const at::Tensor batch = at::empty({static_cast<std::int64_t>(waiting.size()), first.channels, first.height, first.width}, at::kByte);
    std::uint8_t* out = batch.data_ptr<std::uint8_t>();
    for (const Image& each : waiting) out = std::copy(each.pixels.begin(), each.pixels.end(), out);
    use(batch);
    waiting.clear();
  };
  for (std::int64_t i = 0; i < count; ++i) {
    Image next = image(i);
    const auto shape = [](const Image& each) { return std::tuple(each.channels, each.height, each.width); };
    if (!waiting.empty() && (static_cast<std::int64_t>(waiting.size()) == kBatch || shape(waiting.front()) != shape(next))) flush();
    waiting.push_back(std::move(next));
  }
  flush();
}

}  // namespace

at::Tensor collect_features(FeatureNetwork& network, std::int64_t count, const std::function<Image(std::int64_t)>& image,
                            const std::function<void(std::int64_t)>& on_progress) {
  if (count < 1) throw Error("there are no images to take features of");
  std::vector<at::Tensor> parts;
  std::int64_t done = 0;
  for_each_batch(count, image, [&](const at::Tensor& batch) {
    parts.push_back(network.features(batch));
    done += batch.size(0);
    if (on_progress) on_progress(done);
  });
  return at::cat(parts);
}

double class_agreement(FeatureNetwork& network, const std::vector<Image>& images, const std::vector<std::int64_t>& labels) {
  if (images.empty() || images.size() != labels.size()) {
    throw Error(fmt::format("class agreement needs one label an image, and has {} images and {} labels", images.size(), labels.size()));
  }
  std::int64_t agreed = 0;
  std::size_t at = 0;
  for_each_batch(
      static_cast<std::int64_t>(images.size()), [&](std::int64_t i) { return images[static_cast<std::size_t>(i)]; },
      [&](const at::Tensor& batch) {
        const at::Tensor scores = network.logits(batch);
        if (!scores.defined()) throw Error("class agreement needs a network that classifies");
        const at::Tensor classes = scores.argmax(1);
        for (std::int64_t i = 0; i < batch.size(0); ++i) agreed += classes[i].item<std::int64_t>() == labels[at++];
      });
  return static_cast<double>(agreed) / static_cast<double>(images.size());
}

std::string format_score(const Score& score) {
  std::string line = fmt::format("{} = {:.6g}  (", score.metric, score.value);
  const char* separator = "";
  for (const auto& [key, value] : score.recipe) {
    line += fmt::format("{}{} {}", separator, key, key.ends_with("hash") ? value.substr(0, 12) : value);
    separator = ", ";
  }
  return line + ")";
}

void append_score(const std::string& path, const Score& score) {
  const std::filesystem::path file = std::filesystem::is_directory(path) ? std::filesystem::path(path) / "scores.jsonl" : std::filesystem::path(path);
  const nlohmann::ordered_json line = {{"metric", score.metric}, {"value", score.value}, {"recipe", score.recipe}};
  append_line(file, line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace uvit
