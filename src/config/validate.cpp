#include <fmt/format.h>

#include <charconv>
#include <set>

#include "config/config.h"
#include "config/keys.h"
#include "core/error.h"

namespace uvit {
namespace {

void check_model(const ModelConfig& model, const DataConfig& data) {
  if (data.image_size.empty() || data.image_size.size() > 2) throw Error("data.image_size: give one side, or [height, width]");
  if (data.height() % model.patch_size != 0 || data.width() % model.patch_size != 0)
    throw Error(fmt::format("model.patch_size = {} does not divide the image of {} x {} pixels (data.image_size)", model.patch_size, data.height(),
                            data.width()));
  if (model.embed_dim % model.num_heads != 0)
    throw Error(fmt::format("model.num_heads = {} does not divide model.embed_dim = {}", model.num_heads, model.embed_dim));
  if (static_cast<double>(model.embed_dim) * model.mlp_ratio < 1)
    throw Error(fmt::format("model.mlp_ratio = {}: the MLP would have no hidden unit", model.mlp_ratio));
  if ((model.context_dim > 0) != (model.context_tokens > 0))
    throw Error(fmt::format("model.context_dim = {} and model.context_tokens = {}: give both or neither", model.context_dim, model.context_tokens));
}

/// "in.3" or "out.3" with 3 below `blocks`.
bool is_numbered_block(std::string_view name, std::int64_t blocks) {
  for (std::string_view side : {"in.", "out."}) {
    if (!name.starts_with(side)) continue;
    const std::string_view digits = name.substr(side.size());
    std::int64_t number = -1;
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return code == std::errc() && end == digits.data() + digits.size() && number >= 0 && number < blocks;
  }
  return false;
}

void check_attention(const ModelConfig& model) {
  const std::int64_t side = model.depth / 2, blocks = 2 * side + 1;
  const auto count = static_cast<std::int64_t>(model.attention.size());
  if (count != 1 && count != blocks)
    throw Error(fmt::format("model.attention names {} kinds: give one, or one for each of the {} blocks of depth {} (in-blocks, mid, out-blocks)",
                            count, blocks, model.depth));
  const std::string numbered = side > 0 ? fmt::format(", in.0 to in.{}, out.0 to out.{}", side - 1, side - 1) : "";
  for (const std::string& name : model.softmax_blocks)
    if (name != "first" && name != "last" && name != "mid" && !is_numbered_block(name, side))
      throw Error(fmt::format("model.softmax_blocks: no block '{}' at depth {}; there are first, last, mid{}", name, model.depth, numbered));
}

void check_train(const TrainConfig& train) {
  if (train.micro_batch_size > 0 && train.batch_size % train.micro_batch_size != 0)
    throw Error(fmt::format("train.micro_batch_size = {} does not divide train.batch_size = {}", train.micro_batch_size, train.batch_size));
  if (train.ema_decay.empty()) throw Error("train.ema_decay: give at least one rate (0 follows the weights)");
  if (std::set<double>(train.ema_decay.begin(), train.ema_decay.end()).size() != train.ema_decay.size())
    throw Error("train.ema_decay: a rate is given twice");
  if (std::set<double>(train.ema_power.begin(), train.ema_power.end()).size() != train.ema_power.size())
    throw Error("train.ema_power: a length is given twice");
}

}  // namespace

void validate(const Config& config) {
  for (const ConfigKey& key : config_keys()) check_range(key, config);
  check_model(config.model, config.data);
  check_attention(config.model);
  check_train(config.train);
  if (const auto& interval = config.sample.guidance_interval; !interval.empty() && (interval.size() != 2 || interval[0] >= interval[1]))
    throw Error("sample.guidance_interval: give [low, high] of sigma / alpha with low < high, or [] for everywhere");
  if (config.diffusion.label_dropout > 0 && config.data.num_classes == 0 && config.model.context_dim == 0)
    throw Error(fmt::format("diffusion.label_dropout = {} needs classes or captions: set data.num_classes or model.context_dim",
                            config.diffusion.label_dropout));
}

}  // namespace uvit
