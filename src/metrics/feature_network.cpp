#include <torch/torch.h>

#include "metrics/feature_network.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>

#include "core/error.h"
#include "core/name_table.h"
#include "metrics/fmnist_cnn.h"

namespace uvit {

namespace fs = std::filesystem;

std::span<const FeatureNetworkRow> feature_network_table() {
  static const std::array rows = {
      FeatureNetworkRow{"fmnist-cnn", "a small classifier of Fashion-MNIST; features: its last hidden layer, 64 values", 1, 28,
                        "grey, bilinear with antialiasing to 28 x 28, (x / 255 - 0.2860) / 0.3530", load_fmnist_cnn},
  };
  return rows;
}

const FeatureNetworkRow& find_feature_network(const std::string& name) { return find_row(feature_network_table(), "feature network", name); }

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
