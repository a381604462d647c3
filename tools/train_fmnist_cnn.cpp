// Trains the classifier of Fashion-MNIST whose last hidden layer is the feature network "fmnist-cnn", and writes
//   DIR/fmnist_cnn.safetensors               its weights, batch norms folded in
//   DIR/fmnist_cnn_fashion_mnist_train.npz   mean and covariance of its features over the 60,000 training images
// Numbers repeat for equal seed and thread count.
#include <torch/torch.h>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <random>

#include "checkpoint/tensor_convert.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "io/safetensors.h"
#include "metrics/fmnist_cnn.h"
#include "metrics/metric.h"
#include "metrics/reference.h"

namespace {

using namespace uvit;
namespace nn = torch::nn;

struct Options {
  std::string data, assets = "assets";
  std::int64_t epochs = 14, batch_size = 128, seed = 0, shift = 1, threads = 2;
  bool keep_weights = false;
  double lr = 3e-3, weight_decay = 0.02, dropout = 0.2;
};

/// FmnistCnn with a batch norm behind every layer that a ReLU follows, and dropout before the hidden layer.
struct TrainingNet : nn::Module {
  explicit TrainingNet(double dropout_rate) : dropout(dropout_rate) {
    register_module("cnn", cnn);
    for (std::size_t i = 0; i < 3; ++i)
      conv_norms.push_back(register_module(fmt::format("norm{}", i + 1), nn::BatchNorm2d(FmnistCnnImpl::kWidths[i])));
    register_module("norm4", hidden_norm);
  }

  torch::Tensor forward(torch::Tensor x) {
    std::size_t i = 0;
    for (nn::Conv2d* conv : {&cnn->conv1, &cnn->conv2, &cnn->conv3}) x = torch::max_pool2d(torch::relu(conv_norms[i++](conv->ptr()->forward(x))), 2);
    x = torch::dropout(x.flatten(1), dropout, is_training());
    return cnn->fc2(torch::relu(hidden_norm(cnn->fc1(x))));
  }

  /// The same function in evaluation mode without norms: w' = w g, b' = (b - mean) g + beta with g = gamma / sqrt(var + eps).
  FmnistCnn folded() {
    const torch::NoGradGuard no_grad;
    FmnistCnn result;
    const auto source = uvit::named_parameters(*cnn), target = uvit::named_parameters(*result);
    for (std::size_t i = 0; i < source.size(); ++i) torch::Tensor(target[i].second).copy_(source[i].second);
    const auto fold = [](nn::Module& layer, const auto& norm) {
      const torch::Tensor gain = norm->weight / (norm->running_var + norm->options.eps()).sqrt();
      torch::Tensor weight = layer.named_parameters()["weight"], bias = layer.named_parameters()["bias"];
      std::vector<std::int64_t> shape(static_cast<std::size_t>(weight.dim()), 1);
      shape[0] = -1;
      weight.mul_(gain.view(shape));
      bias.copy_((bias - norm->running_mean) * gain + norm->bias);
    };
    fold(*result->conv1, conv_norms[0]);
    fold(*result->conv2, conv_norms[1]);
    fold(*result->conv3, conv_norms[2]);
    fold(*result->fc1, hidden_norm);
    return result;
  }

  double dropout;
  FmnistCnn cnn;
  std::vector<nn::BatchNorm2d> conv_norms;
  nn::BatchNorm1d hidden_norm{FmnistCnnImpl::kFeatures};
};

// Moves each image of [B, 1, 28, 28] by up to `reach` pixels each way; black comes in.
torch::Tensor shifted(const torch::Tensor& images, std::int64_t reach, std::mt19937& draws) {
  const std::int64_t side = images.size(3);
  const torch::Tensor padded = torch::constant_pad_nd(images, {reach, reach, reach, reach}, 0);
  std::vector<torch::Tensor> moved;
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    const std::int64_t top = static_cast<std::int64_t>(draws()) % (2 * reach + 1), left = static_cast<std::int64_t>(draws()) % (2 * reach + 1);
    moved.push_back(padded[i].narrow(1, top, side).narrow(2, left, side));
  }
  return torch::stack(moved);
}

torch::Tensor bytes_of(const Batch& batch) {
  const auto size = static_cast<std::int64_t>(batch.labels.size());
  const torch::Tensor images = torch::tensor(c10::ArrayRef<float>(batch.images)).view({size, 1, 28, 28});
  return ((images + 1) * 127.5).round().to(torch::kByte);
}

FmnistCnn train(const Dataset& dataset, const Options& options) {
  torch::manual_seed(static_cast<std::uint64_t>(options.seed));
  std::mt19937 draws(static_cast<std::uint32_t>(options.seed));
  TrainingNet net(options.dropout);
  torch::optim::AdamW optimizer(net.parameters(), torch::optim::AdamWOptions(options.lr).weight_decay(options.weight_decay));
  LoaderOptions order;
  order.seed = static_cast<std::uint64_t>(options.seed);
  order.batch_size = options.batch_size;
  order.flip = true;
  DataLoader loader(dataset, order);
  const std::int64_t steps = options.epochs * dataset.size() / options.batch_size, warmup_steps = steps / 20 + 1;
  Progress progress("train", steps * options.batch_size, "images");
  for (std::int64_t step = 0; step < steps; ++step) {
    const double warm = std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warmup_steps));
    const double lr = options.lr * warm * 0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(steps)));
    for (auto& group : optimizer.param_groups()) group.options().set_lr(lr);
    const Batch batch = loader.next();
    const torch::Tensor loss =
        torch::cross_entropy_loss(net.forward(fmnist_cnn_input(shifted(bytes_of(batch), options.shift, draws))), torch::tensor(batch.labels));
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    progress.update((step + 1) * options.batch_size, fmt::format("loss {:.4f}", loss.item<double>()));
  }
  net.eval();
  return net.folded();
}

std::vector<Image> images_of(const Dataset& dataset, std::vector<std::int64_t>& labels) {
  std::vector<Image> images;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    images.push_back({1, 28, 28, std::vector<std::uint8_t>(28 * 28)});
    dataset.read(i, images.back().pixels);
    labels.push_back(dataset.label(i));
  }
  return images;
}

/// Writes the weights, then reads them back as the feature network to measure it. @return accuracy on the test images
double write_network(const FmnistCnn& network, const Options& options) {
  const std::string command = fmt::format(
      "train_fmnist_cnn --epochs {} --batch-size {} --lr {} --weight-decay {} --dropout {} --shift {} --seed {} --threads {}", options.epochs,
      options.batch_size, options.lr, options.weight_decay, options.dropout, options.shift, options.seed, options.threads);
  const auto write = [&](double accuracy) {
    TensorFile file = to_tensor_file(named_parameters(*network));
    file.metadata = {{"network", "fmnist-cnn"},
                     {"command", command},
                     {"date", fmt::format("{:%F}", fmt::gmtime(std::time(nullptr)))},
                     {"test_accuracy", fmt::format("{:.4f}", accuracy)}};
    write_safetensors(options.assets + "/fmnist_cnn.safetensors", file);
  };
  DataConfig config;
  config.path = options.data;
  std::vector<std::int64_t> labels;
  const std::vector<Image> images = images_of(*open_dataset(config, Split::test), labels);
  write(0);
  const double accuracy = class_agreement(*load_feature_network("fmnist-cnn"), images, labels);
  write(accuracy);
  return accuracy;
}

void run(const Options& options) {
  at::set_num_threads(static_cast<int>(options.threads));
  make_directories(options.assets);
  ::setenv("UVIT_ASSETS", options.assets.c_str(), 1);  // what is written here is what is measured
  DataConfig config;
  config.path = options.data;
  if (!options.keep_weights) {
    const FmnistCnn network = train(*open_dataset(config, Split::train), options);
    fmt::print("test accuracy {:.4f}\n", write_network(network, options));
  }
  const Reference reference = load_reference("fashion_mnist", *load_feature_network("fmnist-cnn"), wanted_for({"fid"}), 0, config);
  write_statistics(options.assets + "/fmnist_cnn_fashion_mnist_train.npz", reference.set.moments.at(OutputKind::features));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains the feature network fmnist-cnn and writes its weights and its reference statistics.");
  app.option_defaults()->always_capture_default();
  app.add_option("--data", options.data, "folder of Fashion-MNIST; empty: where Debian's package puts it");
  app.add_option("--assets", options.assets, "folder to write to");
  app.add_option("--epochs", options.epochs)->check(CLI::PositiveNumber);
  app.add_option("--batch-size", options.batch_size)->check(CLI::PositiveNumber);
  app.add_option("--lr", options.lr, "largest learning rate; warm-up over 5 % of the steps, then a cosine to 0");
  app.add_option("--weight-decay", options.weight_decay);
  app.add_option("--dropout", options.dropout);
  app.add_option("--shift", options.shift, "pixels an image is moved at most")->check(CLI::Range(0, 8));
  app.add_option("--seed", options.seed);
  app.add_option("--threads", options.threads)->check(CLI::PositiveNumber);
  app.add_flag("--keep-weights", options.keep_weights, "train nothing: write the statistics of the weights that are there");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
  return 0;
}
