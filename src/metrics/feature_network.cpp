#include <torch/torch.h>

#include "metrics/feature_network.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>

#include "core/error.h"
#include "core/name_table.h"
#include "io/host_tensor.h"
#include "metrics/fmnist_cnn.h"
#include "metrics/inception.h"
#include "metrics/script_network.h"

namespace uvit {

namespace fs = std::filesystem;

std::span<const FeatureNetworkRow> feature_network_table() {
  static const std::array rows = {
      FeatureNetworkRow{"fmnist-cnn", "a small classifier of Fashion-MNIST; features: its last hidden layer, 64 values", load_fmnist_cnn},
      FeatureNetworkRow{"inception", "Inception-v3 of FID, weights pt_inception-2015-12-05-6726825d.pth; 2048 features, also 64, 192, 768", load_inception},
      FeatureNetworkRow{"script", "script:FILE, any TorchScript module with a .toml beside it (size, resize, mean, std, output)", load_script_network},
  };
  return rows;
}

std::unique_ptr<FeatureNetwork> load_feature_network(const std::string& name, const NetworkOptions& options) {
  const std::size_t colon = name.find(':');
  const FeatureNetworkRow& row = find_row(feature_network_table(), "feature network", name.substr(0, colon));
  return row.load(colon == std::string::npos ? "" : name.substr(colon + 1), options);
}

FeatureOutput FeatureNetwork::output(const std::string& wanted) const {
  const std::vector<FeatureOutput> all = outputs();
  return find_row(std::span<const FeatureOutput>(all), "output of feature network " + name(), wanted);
}

FeatureOutput FeatureNetwork::output(OutputKind kind) const {
  for (const FeatureOutput& each : outputs()) {
    if (each.kind == kind) return each;
  }
  throw Error(fmt::format("feature network {} gives no {}", name(), kind == OutputKind::logits ? "class scores" : "spatial features"));
}

at::Tensor FeatureNetwork::features(const at::Tensor& images) {
  const std::string first = outputs().front().name;
  return run(prepare(images), {first}).at(first);
}

Recipe FeatureNetwork::recipe() const {
  return {{"network", name()}, {"network_hash", weights_hash()}, {"preprocess", preprocess()}, {"network_precision", precision()}};
}

at::Tensor float_image(const at::Tensor& images, std::int64_t channels, const std::string& network) {
  const bool known = images.dim() == 4 && (images.size(1) == 1 || images.size(1) == 3 || images.size(1) == 4);
  if (!known || images.scalar_type() != at::kByte) {
    throw Error(fmt::format("{} takes uint8 images [N, 1 or 3 or 4, H, W], not {} {}", network, c10::toString(images.scalar_type()),
                            format_shape(images.sizes().vec())));
  }
  const at::Tensor x = images.to(torch::kFloat32);
  if (channels == 1 && x.size(1) > 1) return 0.299 * x.narrow(1, 0, 1) + 0.587 * x.narrow(1, 1, 1) + 0.114 * x.narrow(1, 2, 1);
  if (channels == 3 && x.size(1) == 1) return x.repeat({1, 3, 1, 1});
  return x.narrow(1, 0, channels);
}

std::string asset_path(const std::string& file) {
  const char* named = std::getenv("UVIT_ASSETS");
  std::vector<fs::path> folders;
  if (named && *named) {
    folders = {named};
  } else {
    std::error_code code;
    const fs::path program = fs::read_symlink("/proc/self/exe", code).parent_path();
    folders = {fs::path(__FILE__).parent_path().parent_path().parent_path() / "assets", program / "assets", program / "../assets",
               program / "../share/uvit/assets"};
  }
  for (const fs::path& folder : folders) {
    if (fs::exists(folder / file)) return (folder / file).lexically_normal().string();
  }
  throw Error(fmt::format("no file {}: set UVIT_ASSETS to the folder assets/ of the source", (folders.front() / file).lexically_normal().string()));
}

}  // namespace uvit
