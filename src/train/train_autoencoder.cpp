#include <torch/torch.h>

#include "train/train_autoencoder.h"

#include <fmt/format.h>

#include <cmath>

#include "checkpoint/autoencoder_file.h"
#include "checkpoint/tensor_convert.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/loader.h"
#include "diffusion/autocast.h"
#include "train/adamw.h"
#include "train/interrupt.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// KL(N(mean, exp(logvar)) || N(0, 1)), mean over everything, in nats.
at::Tensor kl_of(const at::Tensor& moments) {
  const auto parts = moments.to(at::kFloat).chunk(2, 1);
  const at::Tensor logvar = at::clamp(parts[1], -30.0, 20.0);
  return 0.5 * (parts[0].square() + logvar.exp() - 1 - logvar).mean();
}

struct Losses {
  at::Tensor reconstruction, kl;
};

Losses losses_of(AutoencoderKL& model, const at::Tensor& x, const at::Tensor& noise, const std::string& precision) {
  const AutocastGuard autocast(precision, x.device().type());
  const at::Tensor moments = model.moments(x).to(at::kFloat);
  const at::Tensor difference = model.decode(model.sample(moments, noise)).to(at::kFloat) - x;
  return {difference.abs().mean() + difference.square().mean(), kl_of(moments)};
}

at::Tensor noise_of(const Batch& batch, const AutoencoderTraining& training, const at::Tensor& images) {
  const std::int64_t down = training.model.downscale();
  std::vector<at::Tensor> rows;
  for (std::int64_t i = 0; i < images.size(0); ++i)
    rows.push_back(latent_noise(training.seed, static_cast<std::uint64_t>(batch.first_sample + i), training.model.embed_dim, images.size(2) / down,
                                images.size(3) / down));
  return at::cat(rows);
}

at::Tensor read_images(const Dataset& dataset, std::int64_t first, std::int64_t count) {
  at::Tensor images = torch::empty({count, dataset.channels(), dataset.height(), dataset.width()}, at::kFloat);
  const std::int64_t values = images.numel() / count;
  for (std::int64_t i = 0; i < count; ++i)
    dataset.read_values(first + i, {.noise = false}, {images.data_ptr<float>() + i * values, static_cast<std::size_t>(values)});
  return images;
}

/// Reconstruction, KL and the spread of latents over test images, whose draws give the scale factor.
void measure(AutoencoderKL& model, const AutoencoderTraining& training, AutoencoderResult& result) {
  constexpr std::int64_t kImages = 2000;
  const torch::NoGradGuard no_grad;
  const std::unique_ptr<Dataset> dataset = open_dataset(training.data, Split::test);
  const std::int64_t images = std::min(kImages, dataset->size());
  double squares = 0, kl = 0, first = 0, second = 0, values = 0, pixels = 0;
  for (std::int64_t i = 0; i < images; i += training.batch_size) {
    const at::Tensor x = read_images(*dataset, i, std::min(training.batch_size, images - i)).to(at::Device(training.device));
    const at::Tensor moments = model.moments(x), mean = moments.chunk(2, 1)[0], variance = at::clamp(moments.chunk(2, 1)[1], -30.0, 20.0).exp();
    squares += (model.decode(model.sample(moments, {})) - x).square().sum(at::kDouble).item<double>();
    kl += kl_of(moments).item<double>() * static_cast<double>(mean.numel());
    first += mean.sum(at::kDouble).item<double>();
    second += (mean.square() + variance).sum(at::kDouble).item<double>();
    values += static_cast<double>(mean.numel());
    pixels += static_cast<double>(x.numel());
  }
  result.psnr = 10 * std::log10(4.0 / (squares / pixels));  // values span 2
  result.kl = kl / values;
  result.scale_factor = 1 / std::sqrt(second / values - std::pow(first / values, 2));
}

}  // namespace

AutoencoderResult train_autoencoder(const AutoencoderTraining& training) {
  // Found before the training rather than behind it.
  if (training.out.extension() != ".safetensors") throw Error(fmt::format("{}: the weights go to a file that ends in .safetensors", training.out.string()));
  make_directories(fs::absolute(training.out).parent_path());
  const std::unique_ptr<Dataset> dataset = open_dataset(training.data, Split::train);
  const at::Device device(training.device);
  AutoencoderOptions options = training.model;
  options.scale_factor = 1;  // the latents' own scale, until it is known
  AutoencoderKL model(options);
  model.initialise(training.seed);
  model.to(device);
  AdamW optimizer(training.optimizer, named_parameters(model));
  const NamedTensors parameters = named_parameters(model);
  LoaderOptions loading;
  loading.seed = training.seed;
  loading.batch_size = training.batch_size;
  loading.flip = training.data.flip;
  DataLoader loader(*dataset, loading);
  Progress progress("train-autoencoder", training.steps, "steps");
  AutoencoderResult result;
  for (std::int64_t step = 0; step < training.steps && !interrupt_requested(); ++step) {
    Batch batch = loader.next();
    const at::Tensor x =
        torch::from_blob(batch.images.data(), {training.batch_size, dataset->channels(), dataset->height(), dataset->width()}).to(device, /*non_blocking=*/false,
                                                                                                                                   /*copy=*/true);
    const Losses losses = losses_of(model, x, noise_of(batch, training, x).to(device), training.precision);
    const at::Tensor loss = losses.reconstruction + training.kl_weight * losses.kl;
    model.zero_grad();
    loss.backward();
    clip_gradients(parameters, training.optimizer.clip_grad_norm);
    optimizer.step(learning_rate(training.optimizer, step, training.steps));
    const double value = loss.item<double>();
    if (!std::isfinite(value)) throw Error(fmt::format("the loss is not finite in step {}: try a smaller --lr", step + 1));
    result.loss = step == 0 ? value : result.loss + (value - result.loss) / std::min(static_cast<double>(step + 1), 100.0);
    progress.update(step + 1, fmt::format("loss {:.4f}", result.loss));
  }
  progress.finish();
  result.interrupted = interrupt_requested();
  model.eval();
  measure(model, training, result);
  options.scale_factor = result.scale_factor;
  AutoencoderKL saved(options);
  load_parameters(saved, to_tensor_file(parameters), "the trained weights");
  save_autoencoder(training.out, saved);
  return result;
}

}  // namespace uvit
