#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <regex>

#include "checkpoint/autoencoder_file.h"
#include "checkpoint/tensor_convert.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "io/pth.h"
#include "io/safetensors.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

std::int64_t number(const std::string& text) {
  std::int64_t value = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size() ? value : -1;
}

/// Number of different i in names "PREFIXi.", 0 where there is none.
std::int64_t count_numbered(const TensorFile& file, const std::string& prefix) {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : file.tensors) {
    if (!name.starts_with(prefix)) continue;
    const std::string rest = name.substr(prefix.size());
    count = std::max(count, number(rest.substr(0, rest.find('.'))) + 1);
  }
  return count;
}

/// diffusers' attention names to the official ones.
std::string attention_part(const std::string& rest) {
  static const std::vector<std::pair<std::string, std::string>> names = {{"group_norm.", "norm."}, {"to_q.", "q."},        {"query.", "q."},
                                                                          {"to_k.", "k."},          {"key.", "k."},         {"to_v.", "v."},
                                                                          {"value.", "v."},         {"to_out.0.", "proj_out."}, {"proj_attn.", "proj_out."}};
  for (const auto& [theirs, ours] : names)
    if (rest.starts_with(theirs)) return ours + rest.substr(theirs.size());
  return rest;
}

std::string resnet_part(const std::string& rest) {
  constexpr std::string_view kShortcut = "conv_shortcut.";
  return rest.starts_with(kShortcut) ? "nin_shortcut." + rest.substr(kShortcut.size()) : rest;
}

/// One name of diffusers' AutoencoderKL as the official file has it. `levels` turns the decoder's order round: up_blocks.0 is its smallest image.
std::string from_diffusers(const std::string& name, std::int64_t levels) {
  std::smatch m;
  static const std::regex block(R"((encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+))");
  static const std::regex middle(R"((encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+))");
  static const std::regex norm(R"((encoder|decoder)\.conv_norm_out\.(.+))");
  if (std::regex_match(name, m, block)) {
    const bool down = m[1] == "encoder";
    const std::int64_t level = down ? number(m[2]) : levels - 1 - number(m[2]);
    const std::string prefix = fmt::format("{}.{}.{}.", m[1].str(), down ? "down" : "up", level);
    if (m[3] == "resnets") return prefix + "block." + m[4].str() + "." + resnet_part(m[5]);
    if (m[3] == "attentions") return prefix + "attn." + m[4].str() + "." + attention_part(m[5]);
    return prefix + (down ? "downsample." : "upsample.") + m[5].str();
  }
  if (std::regex_match(name, m, middle)) {
    if (m[2] == "attentions") return fmt::format("{}.mid.attn_1.{}", m[1].str(), attention_part(m[4]));
    return fmt::format("{}.mid.block_{}.{}", m[1].str(), number(m[3]) + 1, resnet_part(m[4]));
  }
  if (std::regex_match(name, m, norm)) return m[1].str() + ".norm_out." + m[2].str();
  return name;
}

const HostTensor& need(const TensorFile& file, const std::string& name) {
  const HostTensor* tensor = file.find(name);
  if (!tensor || tensor->shape.size() != 4) throw Error(fmt::format("it has no convolution '{}', so it is no KL autoencoder", name));
  return *tensor;
}

/// Number under `key` of a JSON object in a file beside the weights; nothing where there is none.
std::optional<double> number_beside(const fs::path& weights, const char* key) {
  const fs::path path = weights.parent_path() / "config.json";
  if (!fs::is_regular_file(path)) return std::nullopt;
  const auto json = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains(key) || !json[key].is_number()) return std::nullopt;
  return json[key].get<double>();
}

double find_scale_factor(const TensorFile& file, const fs::path& path) {
  const auto stored = file.metadata.find("scale_factor");
  if (stored != file.metadata.end()) {
    double value = 0;
    const char* end = stored->second.data() + stored->second.size();
    if (std::from_chars(stored->second.data(), end, value).ptr != end) throw Error(fmt::format("its scale_factor '{}' is no number", stored->second));
    return value;
  }
  return number_beside(path, "scaling_factor").value_or(AutoencoderOptions{}.scale_factor);
}

}  // namespace

TensorFile to_official_autoencoder(TensorFile file) {
  constexpr std::string_view kPrefix = "first_stage_model.";
  if (file.find(std::string(kPrefix) + "quant_conv.weight")) {
    std::erase_if(file.tensors, [&](const auto& item) { return !item.first.starts_with(kPrefix); });
    for (auto& [name, tensor] : file.tensors) name.erase(0, kPrefix.size());
  }
  const std::int64_t levels = count_numbered(file, "decoder.up_blocks.");
  for (auto& [name, tensor] : file.tensors) {
    if (levels > 0) name = from_diffusers(name, levels);
    // diffusers keeps the attention's 1x1 convolutions as matrices
    const bool attention = name.find(".attn_1.") != std::string::npos || name.find(".attn.") != std::string::npos;
    if (attention && name.ends_with(".weight") && tensor.shape.size() == 2) tensor.shape.insert(tensor.shape.end(), {1, 1});
  }
  return file;
}

AutoencoderOptions infer_autoencoder_options(const TensorFile& file) {
  AutoencoderOptions o;
  const HostTensor& first = need(file, "encoder.conv_in.weight");
  o.ch = first.shape[0];
  o.in_channels = first.shape[1];
  o.out_channels = need(file, "decoder.conv_out.weight").shape[0];
  o.z_channels = need(file, "post_quant_conv.weight").shape[0];
  o.embed_dim = need(file, "post_quant_conv.weight").shape[1];
  o.num_res_blocks = count_numbered(file, "encoder.down.0.block.");
  o.ch_mult.clear();
  for (std::int64_t level = 0; level < count_numbered(file, "encoder.down."); ++level) {
    const std::int64_t out = need(file, fmt::format("encoder.down.{}.block.0.conv1.weight", level)).shape[0];
    if (o.ch < 1 || out % o.ch != 0) throw Error(fmt::format("its level {} is {} channels wide, no multiple of the first width {}", level, out, o.ch));
    o.ch_mult.push_back(out / o.ch);
    o.attention.push_back(file.find(fmt::format("encoder.down.{}.attn.0.q.weight", level)) != nullptr);
  }
  if (std::find(o.attention.begin(), o.attention.end(), true) == o.attention.end()) o.attention.clear();
  return o;
}

std::shared_ptr<AutoencoderKL> load_autoencoder(const fs::path& path, std::optional<double> scale_factor) {
  if (!fs::exists(path)) throw Error(fmt::format("no such autoencoder: {}", path.string()));
  const fs::path file = fs::is_directory(path) ? path / "diffusion_pytorch_model.safetensors" : path;
  const bool pickled = file.extension() == ".pth" || file.extension() == ".pt";
  if (!pickled && file.extension() != ".safetensors") throw Error(fmt::format("{} is no autoencoder: name a .safetensors or .pth file", path.string()));
  TensorFile weights = pickled ? read_pth_state_dict(file) : read_safetensors(file);
  try {
    weights = to_official_autoencoder(std::move(weights));
    AutoencoderOptions options = infer_autoencoder_options(weights);
    options.scale_factor = scale_factor ? *scale_factor : find_scale_factor(weights, file);
    auto autoencoder = std::make_shared<AutoencoderKL>(options);
    load_parameters(*autoencoder, weights, "its weights");
    autoencoder->eval();
    return autoencoder;
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as an autoencoder: {}", file.string(), error.what()));
  }
}

std::function<at::Tensor(const at::Tensor&)> make_latent_decoder(const fs::path& autoencoder, double scale_factor, at::Device device) {
  if (autoencoder.empty()) throw Error("the model draws latents: name the autoencoder that decodes them with data.autoencoder (or --autoencoder)");
  auto decoder = load_autoencoder(autoencoder, scale_factor);
  decoder->to(device);
  return [decoder, device](const at::Tensor& latents) {
    constexpr std::int64_t kRows = 4;  // images decoded at a time: the decoder's widest layers take hundreds of MiB an image of 512 x 512
    std::vector<at::Tensor> images;
    for (std::int64_t first = 0; first < latents.size(0); first += kRows)
      images.push_back(decoder->decode(latents.narrow(0, first, std::min(kRows, latents.size(0) - first)).to(device)).to(at::kCPU, at::kFloat));
    return at::cat(images);
  };
}

void save_autoencoder(const fs::path& path, const AutoencoderKL& autoencoder) {
  TensorFile file = to_tensor_file(named_parameters(autoencoder));
  file.metadata = {{"format", "pt"}, {"scale_factor", fmt::format("{}", autoencoder.options().scale_factor)}};
  write_safetensors(path, file);
}

}  // namespace uvit
