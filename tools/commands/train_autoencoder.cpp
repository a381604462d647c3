#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "core/error.h"
#include "data/dataset.h"
#include "train/train_autoencoder.h"
#include "train/trainer.h"

namespace uvit {
namespace {

struct Arguments {
  AutoencoderTraining training;
  std::int64_t image_size = 0, channels = 0, threads = 0;
};

void run(const Arguments& arguments) {
  AutoencoderTraining training = arguments.training;
  for (const DatasetRow& row : dataset_table()) {
    if (row.name != training.data.dataset) continue;
    training.data.image_size = {arguments.image_size > 0 ? arguments.image_size : row.native_size};
    training.data.channels = arguments.channels > 0 ? arguments.channels : std::max<std::int64_t>(row.native_channels, 1);
    if (training.data.image_size.front() == 0) throw UsageError(fmt::format("dataset {} has images of any size: give --image-size", row.name));
  }
  training.model.in_channels = training.model.out_channels = training.data.channels;
  training.model.embed_dim = training.model.z_channels;
  if (training.data.image_size.front() % training.model.downscale() != 0)
    throw UsageError(fmt::format("{} levels shrink an image by {}, which does not divide {} pixels", training.model.levels(), training.model.downscale(),
                                 training.data.image_size.front()));
  if (training.steps < 1 || training.batch_size < 1) throw UsageError("--steps and --batch-size must be at least 1");
  if (arguments.threads > 0) at::set_num_threads(static_cast<int>(arguments.threads));
  install_signal_handlers();
  const AutoencoderResult result = train_autoencoder(training);
  fmt::print("loss {:.4f}; test images: reconstruction {:.2f} dB PSNR, KL {:.3f} nats a latent value, scale factor {:.5f}{}\n{}\n", result.loss, result.psnr,
             result.kl, result.scale_factor, result.interrupted ? " (stopped early)" : "", training.out.string());
}

}  // namespace

void add_train_autoencoder_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train-autoencoder", "Train a KL autoencoder (reconstruction + KL) for latent diffusion");
  auto arguments = std::make_shared<Arguments>();
  AutoencoderTraining& t = arguments->training;
  t.model.ch = 32;
  t.model.ch_mult = {1, 2, 2};
  t.model.num_res_blocks = 1;
  t.optimizer.lr = 1e-3;
  t.optimizer.betas = {0.9, 0.99};
  t.optimizer.weight_decay = 0;
  t.optimizer.warmup_steps = 50;
  t.optimizer.lr_schedule = "cosine";
  t.optimizer.clip_grad_norm = 1;
  command->add_option("DATA", t.data.dataset, "A row of `uvit list datasets`")->required();
  command->add_option("-o,--out", t.out, "Weights to write, .safetensors")->required();
  command->add_option("--data-path", t.data.path, "Where the dataset lies (default: the dataset's own place)");
  command->add_option("--image-size", arguments->image_size, "Pixels a side (default: the dataset's own)");
  command->add_option("--channels", arguments->channels, "1 grey, 3 RGB (default: the dataset's own)");
  command->add_option("--ch", t.model.ch, "Channels of the first level, a multiple of 32");
  command->add_option("--ch-mult", t.model.ch_mult, "Widths of the levels over --ch; each but the first halves the image")->delimiter(',');
  command->add_option("--res-blocks", t.model.num_res_blocks, "Residual blocks a level");
  command->add_option("--latent-channels", t.model.z_channels, "Channels of a latent");
  command->add_option("--kl-weight", t.kl_weight, "Weight of the KL term");
  command->add_option("--steps", t.steps, "Optimizer steps");
  command->add_option("--batch-size", t.batch_size, "Images a step");
  command->add_option("--lr", t.optimizer.lr, "Learning rate (50 steps of warm-up, then a cosine to 0)");
  command->add_option("--seed", t.seed, "Of order, initial weights and draws");
  command->add_option("--precision", t.precision, "fp32 or bf16")->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_option("--device", t.device, "cpu or cuda");
  command->add_option("--threads", arguments->threads, "CPU threads; 0: all");
  command->add_flag("--flip", t.data.flip, "Random horizontal flips");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
