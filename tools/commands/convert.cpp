#include <torch/torch.h>

#include <fmt/format.h>

#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "checkpoint/official.h"
#include "commands/commands.h"
#include "core/error.h"
#include "io/pth.h"
#include "io/safetensors.h"

namespace uvit {
namespace {

struct Arguments {
  std::string from, to, config;
  std::vector<std::string> overrides;
  bool raw_weights = false;
};

/// The weights of a run or of a weight file, as they are on disk.
TensorFile read_weights(const std::filesystem::path& path, bool ema) {
  if (!std::filesystem::exists(path)) throw Error(fmt::format("{}: no such file or folder", path.string()));
  if (is_official_checkpoint(path)) return read_pth_state_dict(path / (ema ? "nnet_ema.pth" : "nnet.pth"));
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

/// An official checkpoint folder to a run that `uvit train --resume` goes on with.
void import_official(const Arguments& arguments) {
  const std::filesystem::path to = arguments.to;
  if (arguments.config.empty()) throw UsageError("an official checkpoint folder does not say its configuration: give --config");
  if (has_checkpoints(to)) throw Error(fmt::format("{} already holds a run: name another folder", to.string()));
  const auto [state, tensors] = load_official_checkpoint(arguments.from, load_config(arguments.config, arguments.overrides));
  const std::filesystem::path step_folder = save_checkpoint(to, state, tensors);
  fmt::print("network, moving average and optimizer at step {}: {} -> {}\ngo on with: uvit train {} --out {} --resume\n", state.step, arguments.from,
             step_folder.string(), arguments.config, to.string());
}

/// A run to a folder as the official training code writes one.
void export_official(const Arguments& arguments) {
  const auto [state, tensors] = load_checkpoint(find_step_folder(arguments.from));
  save_official_checkpoint(arguments.to, state, tensors);
  fmt::print("network, moving average and optimizer at step {}: {} -> {}\n", state.step, arguments.from, arguments.to);
}

void convert_weights(const Arguments& arguments) {
  const std::filesystem::path to = arguments.to;
  const TensorFile file = read_weights(arguments.from, !arguments.raw_weights);
  if (to.extension() == ".safetensors") {
    write_safetensors(to, file);
  } else {
    write_pth_state_dict(to, file);
  }
  fmt::print("{} tensors: {} -> {}\n", file.tensors.size(), arguments.from, to.string());
}

void run(const Arguments& arguments) {
  const std::string ending = std::filesystem::path(arguments.to).extension().string();
  if (ending == ".safetensors" || ending == ".pth" || ending == ".pt") return convert_weights(arguments);
  if (ending == ".ckpt") return export_official(arguments);
  if (is_official_checkpoint(arguments.from)) return import_official(arguments);
  throw UsageError(fmt::format("{}: the target must end in .safetensors or .pth; or in .ckpt for a run; or be a new run for an official .ckpt folder",
                               arguments.to));
}

}  // namespace

void add_convert_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("convert", "Weights from a run, .safetensors or .pth (never running code of the file) to .safetensors or .pth; whole official checkpoints both ways");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("FROM", arguments->from, "Run folder, step folder, .safetensors, .pth or official folder .ckpt")->required();
  command->add_option("TO", arguments->to, "File to write, its ending says the format; a run becomes an official folder DIR.ckpt, and such a folder a run")->required();
  command->add_option("--config", arguments->config, "Configuration of an official folder .ckpt that becomes a run");
  command->add_option("--set", arguments->overrides, "section.key=value, over what the configuration says; may be given often")->expected(1)->take_all();
  command->add_flag("--raw-weights", arguments->raw_weights, "Of a run: the weights of the last step instead of their moving average");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
