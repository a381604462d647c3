#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/host_tensor.h"
#include "metrics/feature_network.h"

namespace uvit {

/// The first digits of the SHA-256 of the published weights, which their file name carries.
inline constexpr const char* kInceptionHash = "6726825d";

/// The Inception-v3 of FID: the network of 2015 with pytorch-fid's state-dict names (Conv2d_1a_3x3.conv.weight ...). It differs from torchvision's in
/// its pools: the A, C and first E blocks average without counting the padding, the last E block takes maxima. Batch norm's epsilon is 1e-3.
/// Outputs: "2048" (average pool behind Mixed_7c), "768" (mean over the image of Mixed_6e), "192", "64" (of the second and first max-pool);
/// "spatial", 2023 values: the first 7 channels of Mixed_6d's 1x1 branch, 17 x 17 places (sFID, arXiv:2103.03841); "logits", 1008 class scores
/// without the bias, as the Inception score takes them.
class Inception : public FeatureNetwork {
 public:
  /// @param weights state dict @param origin its file, for messages @param hash SHA-256 of that file
  /// Throws Error naming a tensor that is missing or of a wrong shape, an unknown resize, precision or device.
  Inception(const TensorFile& weights, const std::string& origin, std::string hash, const NetworkOptions& options);
  ~Inception() override;

  std::string name() const override { return "inception"; }
  std::int64_t channels() const override { return 3; }
  std::vector<FeatureOutput> outputs() const override;
  at::Tensor prepare(const at::Tensor& images) const override;
  NamedFeatures run(const at::Tensor& prepared, const std::vector<std::string>& wanted) override;
  std::string weights_hash() const override { return hash_; }
  std::string preprocess() const override;
  std::string precision() const override { return options_.precision; }

  /// Runs the layers in order and shows each one's result [N, C, H, W] until `visit` returns false. Names: "Conv2d_1a_3x3", "maxpool1", "Mixed_5b", ...
  void trace(const at::Tensor& prepared, const std::function<bool(const std::string& layer, const at::Tensor& result)>& visit);

 private:
  struct Layers;
  std::unique_ptr<Layers> layers_;
  std::string hash_;
  NetworkOptions options_;
};

/// Loads options.weights: the published .pth (in pytorch-fid's releases), or a .safetensors of the same names. Prints its hash.
/// Throws Error where no file is named, and for a file with another hash unless options.any_weights.
std::unique_ptr<FeatureNetwork> load_inception(const std::string& file, const NetworkOptions& options);

}  // namespace uvit
