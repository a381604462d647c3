#include <torch/torch.h>

#include "train/text_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "checkpoint/clip_text_file.h"
#include "checkpoint/tensor_convert.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/progress.h"
#include "data/latent_index.h"
#include "data/shard_index.h"
#include "io/json_field.h"
#include "io/safetensors.h"
#include "train/interrupt.h"

namespace uvit {
namespace fs = std::filesystem;

TextContext::TextContext(const fs::path& text_encoder, const fs::path& vocabulary, std::int64_t tokens, const std::string& device)
    : encoder_(load_clip_text(text_encoder)),
      tokenizer_(vocabulary),
      tokens_(tokens > 0 ? tokens : encoder_->options().max_length),
      device_(device) {
  if (tokenizer_.vocab_size() > encoder_->options().vocab_size)
    throw Error(fmt::format("the vocabulary {} has {} tokens, and the text encoder {} knows {}: they do not belong together", vocabulary.string(),
                            tokenizer_.vocab_size(), text_encoder.string(), encoder_->options().vocab_size));
  if (tokens_ > encoder_->options().max_length)
    throw Error(fmt::format("a context of {} tokens was asked for, and the text encoder takes at most {}", tokens_, encoder_->options().max_length));
  encoder_->to(device_);
}

at::Tensor TextContext::encode(const std::vector<std::string>& texts) {
  const torch::NoGradGuard no_grad;
  at::Tensor contexts = torch::empty({static_cast<std::int64_t>(texts.size()), tokens_, dim()}, at::kFloat);
  std::map<std::string, std::int64_t> encoded;  // row of each text
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto [known, is_new] = encoded.emplace(texts[i], static_cast<std::int64_t>(i));
    if (!is_new) {
      contexts[static_cast<std::int64_t>(i)].copy_(contexts[known->second]);
      continue;
    }
    const at::Tensor ids = torch::tensor(tokenizer_.tokenize(texts[i], tokens_), at::kLong).unsqueeze(0).to(device_);
    contexts[static_cast<std::int64_t>(i)].copy_(encoder_->forward(ids)[0]);
  }
  return contexts;
}

namespace {

std::vector<Caption> read_coco(const nlohmann::json& json) {
  std::map<std::int64_t, std::int64_t> numbers;  // image id -> place among the sorted ids
  for (const auto& image : json.at("images")) numbers.emplace(integer_at(image, "id"), 0);
  std::int64_t next = 0;
  for (auto& [id, number] : numbers) number = next++;
  std::vector<std::pair<std::int64_t, Caption>> found;
  for (const auto& annotation : json.at("annotations")) {
    const auto number = numbers.find(integer_at(annotation, "image_id"));
    if (number == numbers.end()) throw Error("a caption belongs to no image of the file");
    found.emplace_back(integer_at(annotation, "id"), Caption{number->second, annotation.at("caption").get<std::string>()});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return std::pair(a.second.image, a.first) < std::pair(b.second.image, b.first); });
  std::vector<Caption> captions;
  for (auto& [id, caption] : found) captions.push_back(std::move(caption));
  return captions;
}

std::vector<Caption> read_lines(const std::string& text) {
  std::vector<Caption> captions;
  std::istringstream lines(text);
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    Caption caption{number, line};
    const std::size_t tab = line.find('\t');
    if (tab != std::string::npos) {
      const auto [end, code] = std::from_chars(line.data(), line.data() + tab, caption.image);
      if (code != std::errc() || end != line.data() + tab || caption.image < 0)
        throw Error(fmt::format("line {} does not begin with the number of an image and a tab", number + 1));
      caption.text = line.substr(tab + 1);
    }
    captions.push_back(std::move(caption));
  }
  std::stable_sort(captions.begin(), captions.end(), [](const Caption& a, const Caption& b) { return a.image < b.image; });
  return captions;
}

std::vector<Caption> read_shards(const fs::path& path) {
  const ShardIndex index = find_shards(path, true);
  std::vector<Caption> captions;
  for (std::size_t i = 0; i < index.samples.size(); ++i)
    for (std::string& text : shard_captions(index, index.samples[i])) captions.push_back({static_cast<std::int64_t>(i), std::move(text)});
  if (captions.empty()) throw Error(fmt::format("the shards of {} hold no caption", path.string()));
  return captions;
}

/// Of everything that captions and their contexts hang on.
std::string settings_key(const CaptionIndex& index, const std::vector<Caption>& captions) {
  std::string text;
  for (const Caption& caption : captions) text += fmt::format("{}\t{}\n", caption.image, caption.text);
  return fmt::format("{} {} {} {} {}", index.count, index.shard_size, index.tokens, index.text_encoder, sha256(std::as_bytes(std::span(text))));
}

}  // namespace

std::vector<Caption> read_captions(const fs::path& path) {
  if (fs::is_directory(path) || path.extension() == ".tar") return read_shards(path);
  const std::string text = read_file(path);
  try {
    std::vector<Caption> captions;
    if (path.extension() == ".json")
      captions = read_coco(nlohmann::json::parse(text));
    else
      captions = read_lines(text);
    if (captions.empty()) throw Error("it has no caption");
    return captions;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("cannot read the captions {}: no COCO json ({})", path.string(), error.what()));
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read the captions {}: {}", path.string(), error.what()));
  }
}

std::vector<Caption> class_captions(const fs::path& split_folder) {
  constexpr std::array kForms = {"{}", "photo of {}", "picture of one {}", "{} on black"};
  const LatentIndex index = read_latent_index(split_folder);
  if (index.class_names.empty()) throw Error(fmt::format("the latents of {} have no class names to make captions from", split_folder.string()));
  std::vector<Caption> captions;
  for (std::int64_t first = 0; first < index.count; first += index.shard_size) {
    const at::Tensor labels = to_torch(SafetensorsReader(shard_path(split_folder, "latents", first / index.shard_size)).read("labels"));
    for (std::int64_t i = 0; i < labels.numel(); ++i) {
      const std::string& name = index.class_names.at(static_cast<std::size_t>(labels[i].item<std::int64_t>()));
      captions.push_back({first + i, fmt::format(fmt::runtime(kForms[static_cast<std::size_t>(first + i) % kForms.size()]), name)});
    }
  }
  return captions;
}

std::int64_t encode_captions(const EncodeTextRequest& request) {
  if (request.shard_size < 1) throw Error("encode-text: the shard size must be at least 1");
  const std::vector<Caption> captions = request.captions == "class-names" ? class_captions(request.out) : read_captions(request.captions);
  TextContext context(request.text_encoder, request.vocabulary, request.tokens, request.device);
  const CaptionIndex index{static_cast<std::int64_t>(captions.size()), request.shard_size, context.tokens(), context.dim(),
                           text_encoder_hash(request.text_encoder)};
  make_directories(request.out);
  // captions.json comes last, so shards without it are those of an interrupted call; its settings are checked by name.
  const std::string key = settings_key(index, captions);
  const fs::path begun = request.out / "captions.begun";
  if (fs::exists(begun) && read_file(begun) != key)
    throw Error(fmt::format("{} was begun with other captions or another text encoder: give the same, or another folder", request.out.string()));
  write_file(begun, std::string_view(key));
  write_safetensors(request.out / "empty_context.safetensors", to_tensor_file({{"context", context.encode({""})[0]}}));
  Progress progress("encode-text", index.count, "captions");
  for (std::int64_t first = 0; first < index.count; first += index.shard_size) {
    if (interrupt_requested()) return first;
    const fs::path path = shard_path(request.out, "captions", first / index.shard_size);
    const std::int64_t n = std::min(index.shard_size, index.count - first);
    if (!fs::exists(path)) {
      std::vector<std::string> texts;
      std::vector<std::int64_t> images;
      for (std::int64_t i = first; i < first + n; ++i) {
        texts.push_back(captions[static_cast<std::size_t>(i)].text);
        images.push_back(captions[static_cast<std::size_t>(i)].image);
      }
      write_safetensors(path, to_tensor_file({{"context", context.encode(texts)}, {"image", torch::tensor(images, at::kLong)}}));
    }
    progress.update(first + n);
  }
  write_caption_index(request.out, index);
  return index.count;
}

}  // namespace uvit
