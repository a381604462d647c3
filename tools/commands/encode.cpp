#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "core/error.h"
#include "train/encode_latents.h"
#include "train/interrupt.h"
#include "train/trainer.h"

namespace uvit {
namespace {

struct Arguments {
  EncodeRequest request;
  std::string split = "both";
  std::vector<std::int64_t> image_size;
  std::optional<std::int64_t> channels;
  std::int64_t threads = 0;
};

/// Sides and channels that the dataset has itself, where they are not given.
DataConfig resolved_data(const Arguments& arguments) {
  DataConfig data = arguments.request.data;
  for (const DatasetRow& row : dataset_table()) {
    if (row.name != data.dataset) continue;
    if (row.native_size > 0) data.image_size = {row.native_size};
    if (row.native_channels > 0) data.channels = row.native_channels;
    if (row.native_size == 0 && arguments.image_size.empty()) throw UsageError(fmt::format("dataset {} has images of any size: give --image-size", row.name));
    if (row.native_channels == 0) data.channels = 3;
  }
  if (!arguments.image_size.empty()) data.image_size = arguments.image_size;
  if (arguments.channels) data.channels = *arguments.channels;
  return data;
}

void run(const Arguments& arguments) {
  if (arguments.split != "train" && arguments.split != "test" && arguments.split != "both") throw UsageError("--split: train, test or both");
  if (arguments.image_size.size() > 2) throw UsageError("--image-size: one side, or height and width");
  if (arguments.threads > 0) at::set_num_threads(static_cast<int>(arguments.threads));
  EncodeRequest request = arguments.request;
  request.data = resolved_data(arguments);
  install_signal_handlers();
  for (const Split split : {Split::train, Split::test}) {
    const std::string name = split == Split::train ? "train" : "test";
    if (arguments.split != "both" && arguments.split != name) continue;
    request.split = split;
    const LatentIndex index = encode_latents(request);
    if (index.mean.empty()) return fmt::print("stopped; the same command goes on\n");
    fmt::print("{}: {} latents of {} x {} x {}{}, scale factor {}, channel means [{:.3f}], standard deviations [{:.3f}]\n",
               split_folder(request.out, split == Split::train).string(), index.count, index.channels, index.height, index.width,
               index.flips ? " and their mirrored images" : "", index.scale_factor, fmt::join(index.mean, ", "), fmt::join(index.std, ", "));
  }
}

}  // namespace

void add_encode_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("encode", "Encode a dataset to latents of a KL autoencoder, for latent diffusion");
  auto arguments = std::make_shared<Arguments>();
  EncodeRequest& request = arguments->request;
  command->add_option("DATA", request.data.dataset, "A row of `uvit list datasets`")->required();
  command->add_option("-o,--out", request.out, "Folder to write: train/ and test/ of it")->required();
  command->add_option("--autoencoder", request.autoencoder, "Weights: official autoencoder_kl.pth, diffusers' folder or .safetensors, or our own")->required();
  command->add_option("--scale-factor", request.scale_factor, "Latents are this times a draw (default: as the file says, else 0.18215)");
  command->add_option("--data-path", request.data.path, "Where the dataset lies (default: the dataset's own place)");
  command->add_option("--image-size", arguments->image_size, "Pixels: side, or height,width (default: the dataset's own)")->delimiter(',');
  command->add_option("--channels", arguments->channels, "1 grey, 3 RGB (default: the dataset's own, else 3)");
  command->add_option("--limit", request.data.limit, "Only the first images of each split; 0: all");
  command->add_option("--split", arguments->split, "train, test or both");
  command->add_flag("--flip", request.flips, "Also the mirrored images, so that data.flip = true is exact");
  command->add_option("--batch-size", request.batch_size, "Images a call of the encoder");
  command->add_option("--shard-size", request.shard_size, "Images a file");
  command->add_option("--device", request.device, "cpu or cuda");
  command->add_option("--threads", arguments->threads, "CPU threads; 0: all");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
