#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "checkpoint/clip_text_file.h"
#include "checkpoint/tensor_convert.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "model/init.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kUntrained = "untrained:";

std::shared_ptr<ClipTextEncoder> untrained_encoder(std::string_view width) {
  constexpr std::int64_t kHeadDim = 32, kLargest = 4096;
  ClipTextOptions options;
  const auto [end, code] = std::from_chars(width.data(), width.data() + width.size(), options.embed_dim);
  if (code != std::errc() || end != width.data() + width.size() || options.embed_dim < kHeadDim || options.embed_dim > kLargest ||
      options.embed_dim % kHeadDim != 0)
    throw Error(fmt::format("text encoder {}{}: the width must be a multiple of {} up to {}", kUntrained, width, kHeadDim, kLargest));
  options.hidden_dim = 4 * options.embed_dim;
  options.depth = 2;
  options.num_heads = options.embed_dim / kHeadDim;
  auto encoder = std::make_shared<ClipTextEncoder>(options);
  initialise_modules(*encoder, /*seed=*/0);
  encoder->eval();
  return encoder;
}

/// Rows [part * n / 3, (part + 1) * n / 3) of a tensor.
HostTensor third(const HostTensor& tensor, std::size_t part) {
  HostTensor result{tensor.dtype, tensor.shape, {}};
  result.shape.front() /= 3;
  const auto size = static_cast<std::ptrdiff_t>(tensor.data.size() / 3), begin = size * static_cast<std::ptrdiff_t>(part);
  result.data.assign(tensor.data.begin() + begin, tensor.data.begin() + begin + size);
  return result;
}

/// "ln_1.weight" -> "layer_norm1.weight"; "" for a name that is not known.
std::string layer_part(std::string_view rest) {
  constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"ln_1.", "layer_norm1."}, {"ln_2.", "layer_norm2."}, {"attn.out_proj.", "self_attn.out_proj."}, {"mlp.c_fc.", "mlp.fc1."}, {"mlp.c_proj.", "mlp.fc2."}};
  for (const auto& [theirs, ours] : kNames)
    if (rest.starts_with(theirs)) return fmt::format("{}{}", ours, rest.substr(theirs.size()));
  return "";
}

TensorFile from_openai(const TensorFile& file) {
  constexpr std::string_view kBlocks = "transformer.resblocks.", kPacked = "attn.in_proj_";
  constexpr std::pair<std::string_view, std::string_view> kNames[] = {{"token_embedding.weight", "embeddings.token_embedding.weight"},
                                                                      {"positional_embedding", "embeddings.position_embedding.weight"},
                                                                      {"ln_final.weight", "final_layer_norm.weight"},
                                                                      {"ln_final.bias", "final_layer_norm.bias"}};
  TensorFile result;
  for (const auto& [name, tensor] : file.tensors) {
    for (const auto& [theirs, ours] : kNames)
      if (name == theirs) result.tensors.emplace_back(ours, tensor);
    if (!name.starts_with(kBlocks)) continue;
    const std::size_t dot = name.find('.', kBlocks.size());
    if (dot == std::string::npos) continue;
    const std::string layer = "encoder.layers." + name.substr(kBlocks.size(), dot - kBlocks.size()) + ".", rest = name.substr(dot + 1);
    if (rest.starts_with(kPacked)) {
      if (tensor.shape.empty() || tensor.shape.front() % 3 != 0) throw Error(fmt::format("'{}' has shape {}", name, format_shape(tensor.shape)));
      const std::string what = rest.substr(kPacked.size());  // weight or bias
      std::size_t part = 0;
      for (const char* projection : {"q_proj", "k_proj", "v_proj"})
        result.tensors.emplace_back(fmt::format("{}self_attn.{}.{}", layer, projection, what), third(tensor, part++));
    } else {
      const std::string part = layer_part(rest);
      if (part.empty()) throw Error(fmt::format("'{}' is no parameter of a CLIP text encoder", name));
      result.tensors.emplace_back(layer + part, tensor);
    }
  }
  return result;
}

TensorFile from_huggingface(const TensorFile& file) {
  constexpr std::string_view kPrefix = "text_model.";
  const bool prefixed = file.find("text_model.final_layer_norm.weight") != nullptr;
  TensorFile result;
  for (const auto& [name, tensor] : file.tensors) {
    if (prefixed && !name.starts_with(kPrefix)) continue;
    std::string own = prefixed ? name.substr(kPrefix.size()) : name;
    if (own == "embeddings.position_ids" || own == "text_projection.weight") continue;  // a buffer of older files; the projection of ...WithProjection
    result.tensors.emplace_back(std::move(own), tensor);
  }
  return result;
}

const HostTensor& matrix(const TensorFile& file, const std::string& name) {
  const HostTensor* tensor = file.find(name);
  if (!tensor || tensor->shape.size() != 2) throw Error(fmt::format("it has no matrix '{}', so it is no CLIP text encoder", name));
  return *tensor;
}

void read_config_beside(const fs::path& weights, ClipTextOptions& options) {
  const fs::path path = weights.parent_path() / "config.json";
  if (!fs::is_regular_file(path)) return;
  auto json = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("text_config")) json = json["text_config"];
  if (!json.is_object()) return;
  if (json.contains("num_attention_heads") && json["num_attention_heads"].is_number_integer()) options.num_heads = json["num_attention_heads"];
  if (json.contains("hidden_act") && json["hidden_act"].is_string()) options.quick_gelu = json["hidden_act"] == "quick_gelu";
}

fs::path weights_file(const fs::path& path) {
  if (!fs::is_directory(path)) return path;
  for (const char* name : {"model.safetensors", "pytorch_model.bin"})
    if (fs::is_regular_file(path / name)) return path / name;
  throw Error(fmt::format("{} holds no text encoder: neither model.safetensors nor pytorch_model.bin", path.string()));
}

}  // namespace

TensorFile to_huggingface_clip_text(TensorFile file) { return file.find("ln_final.weight") ? from_openai(file) : from_huggingface(file); }

ClipTextOptions infer_clip_text_options(const TensorFile& file) {
  const HostTensor& token = matrix(file, "embeddings.token_embedding.weight");
  ClipTextOptions options;
  options.vocab_size = token.shape[0];
  options.embed_dim = token.shape[1];
  options.max_length = matrix(file, "embeddings.position_embedding.weight").shape[0];
  options.hidden_dim = matrix(file, "encoder.layers.0.mlp.fc1.weight").shape[0];
  options.num_heads = std::max<std::int64_t>(1, options.embed_dim / 64);
  options.depth = 0;
  while (file.find(fmt::format("encoder.layers.{}.mlp.fc1.weight", options.depth))) ++options.depth;
  return options;
}

std::shared_ptr<ClipTextEncoder> load_clip_text(const fs::path& path, std::int64_t num_heads) {
  const std::string name = path.string();
  if (name.starts_with(kUntrained)) return untrained_encoder(std::string_view(name).substr(kUntrained.size()));
  if (!fs::exists(path)) throw Error(fmt::format("no such text encoder: {}", path.string()));
  const fs::path file = weights_file(path);
  const bool pickled = file.extension() == ".pth" || file.extension() == ".pt" || file.extension() == ".bin";
  if (!pickled && file.extension() != ".safetensors") throw Error(fmt::format("{} is no text encoder: name a .safetensors or .pth file", path.string()));
  const TensorFile weights = pickled ? read_pth_state_dict(file) : read_safetensors(file);
  try {
    const TensorFile own = to_huggingface_clip_text(weights);
    ClipTextOptions options = infer_clip_text_options(own);
    read_config_beside(file, options);
    if (num_heads > 0) options.num_heads = num_heads;
    auto encoder = std::make_shared<ClipTextEncoder>(options);
    load_parameters(*encoder, own, "its weights");
    encoder->eval();
    return encoder;
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as a CLIP text encoder: {}", file.string(), error.what()));
  }
}

std::string text_encoder_hash(const fs::path& path) {
  const std::string name = path.string();
  return name.starts_with(kUntrained) ? name : sha256_of_file(weights_file(path));
}

}  // namespace uvit
