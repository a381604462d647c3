#include <torch/torch.h>

#include "checkpoint/stored_weights.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>

#include "checkpoint/step_files.h"
#include "core/error.h"
#include "io/pth.h"
#include "io/safetensors.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

StoredWeights read_file_of_weights(const fs::path& file) {
  const bool pickled = file.extension() == ".pth" || file.extension() == ".pt";
  if (!pickled && file.extension() != ".safetensors")
    throw Error(fmt::format("{} is no checkpoint: a run folder, a step folder, a .safetensors or a .pth file will do", file.string()));
  StoredWeights stored;
  stored.file = file;
  stored.name = file.filename().string();
  if (fs::is_regular_file(file.parent_path() / "state.json")) stored.state = load_state(file.parent_path());  // its neighbour says what it is
  stored.tensors = pickled ? read_pth_state_dict(file) : read_safetensors(file);
  return stored;
}

StoredWeights read_step_folder(const fs::path& step_folder, bool ema) {
  StoredWeights stored;
  stored.state = load_state(step_folder);
  stored.name = ema ? fmt::format("ema_{}", ema_profile(stored.state->config.train.ema_decay.front())) : "model";
  stored.file = step_folder / (stored.name + ".safetensors");
  stored.tensors = read_verified(step_folder, stored.file.filename().string());
  return stored;
}

/// Rows and columns of the patches of the weights; {0, 0} where they cannot be told.
std::pair<std::int64_t, std::int64_t> patch_grid(const StoredWeights& stored, std::int64_t patches) {
  if (stored.state) {
    const Config& config = stored.state->config;
    return {config.data.height() / config.model.patch_size, config.data.width() / config.model.patch_size};
  }
  const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(patches))));
  return side * side == patches ? std::pair(side, side) : std::pair<std::int64_t, std::int64_t>(0, 0);
}

/// Interpolates pos_embed of the weights where they are of another resolution; leaves it where more differs, for load_parameters to refuse.
void fit_pos_embed(StoredWeights& stored, const UViT& model) {
  const UViTOptions& o = model.options();
  for (auto& [name, tensor] : stored.tensors.tensors) {
    if (name != "pos_embed" || tensor.shape.size() != 3 || tensor.shape[0] != 1 || tensor.shape[2] != o.embed_dim) continue;
    const std::int64_t patches = tensor.shape[1] - o.num_extras(), new_rows = o.height / o.patch_size, new_columns = o.width / o.patch_size;
    if (patches < 1) continue;
    const auto [rows, columns] = patch_grid(stored, patches);
    if (rows * columns != patches || (rows == new_rows && columns == new_columns)) continue;
    const at::Tensor source = to_torch(tensor).to(at::kFloat);
    tensor = to_host(interpolate_pos_embed(source, rows, columns, new_rows, new_columns));
    spdlog::info("{}: pos_embed of {} x {} patches is interpolated to {} x {}", stored.file.string(), rows, columns, new_rows, new_columns);
  }
}

}  // namespace

StoredWeights read_weights(const fs::path& path, bool ema) {
  if (!fs::exists(path)) throw Error(fmt::format("no such checkpoint: {}", path.string()));
  if (fs::is_regular_file(path)) return read_file_of_weights(path);
  if (const fs::path official = path / (ema ? "nnet_ema.pth" : "nnet.pth"); fs::is_regular_file(official)) return read_file_of_weights(official);
  return read_step_folder(find_step_folder(path), ema);
}

void load_initial_weights(UViT& model, const fs::path& path) {
  StoredWeights stored = read_weights(path, /*ema=*/true);
  fit_pos_embed(stored, model);
  load_parameters(model, stored.tensors, stored.file.string());
}

}  // namespace uvit
