#include <torch/torch.h>

#include <fmt/format.h>

#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "core/error.h"
#include "io/pth.h"
#include "io/safetensors.h"

namespace uvit {
namespace {

struct Arguments {
  std::string from, to;
  bool raw_weights = false;
};

/// The weights of a run or of a weight file, as they are on disk.
TensorFile read_weights(const std::filesystem::path& path, bool ema) {
  if (!std::filesystem::exists(path)) throw Error(fmt::format("{}: no such file or folder", path.string()));
  if (std::filesystem::is_directory(path)) {
    const auto [state, tensors] = load_checkpoint(find_step_folder(path));
    const bool averaged = ema && !tensors.ema.empty();
    TensorFile file = to_tensor_file(averaged ? tensors.ema.begin()->second : tensors.model);
    file.metadata = {{"step", std::to_string(state.step)}, {"weights", averaged ? "ema_" + tensors.ema.begin()->first : "model"}, {"config", to_toml(state.config)}};
    return file;
  }
  if (path.extension() == ".safetensors") return read_safetensors(path);
  if (path.extension() == ".pth" || path.extension() == ".pt") return read_pth_state_dict(path);
  throw Error(fmt::format("{}: neither a run folder nor a .safetensors or .pth file", path.string()));
}

void run(const Arguments& arguments) {
  const std::filesystem::path to = arguments.to;
  const bool safetensors = to.extension() == ".safetensors";
  if (!safetensors && to.extension() != ".pth" && to.extension() != ".pt")
    throw UsageError(fmt::format("{}: the target must end in .safetensors or .pth", to.string()));
  const TensorFile file = read_weights(arguments.from, !arguments.raw_weights);
  if (safetensors) {
    write_safetensors(to, file);
  } else {
    write_pth_state_dict(to, file);
  }
  fmt::print("{} tensors: {} -> {}\n", file.tensors.size(), arguments.from, to.string());
}

}  // namespace

void add_convert_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("convert", "Weights from a run, .safetensors or .pth (never running code of the file) to .safetensors or .pth");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("FROM", arguments->from, "Run folder, step folder, .safetensors or .pth")->required();
  command->add_option("TO", arguments->to, "File to write; its ending says the format")->required();
  command->add_flag("--raw-weights", arguments->raw_weights, "Of a run: the weights of the last step instead of their moving average");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
