#include <torch/torch.h>

#include "metrics/inception.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>

#include "checkpoint/tensor_convert.h"
#include "core/error.h"
#include "core/hash.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "metrics/folded_conv.h"
#include "metrics/resize.h"

namespace uvit {
namespace {

constexpr std::int64_t kSize = 299, kSpatialChannels = 7;
constexpr double kEpsilon = 1e-3;

using Pair = std::array<std::int64_t, 2>;

at::Tensor max_pool(const at::Tensor& x) { return at::max_pool2d(x, {3, 3}, {2, 2}); }

at::Tensor mean_over_image(const at::Tensor& x) { return x.to(at::kFloat).mean({2, 3}); }

}  // namespace

struct Inception::Layers {
  Layers(const TensorFile& weights, const NetworkOptions& options)
      : file(&weights), device(options.device), dtype(options.precision == "bf16" ? at::kBFloat16 : at::kFloat) {
    for (const auto& [name, stride] : {std::pair<const char*, std::int64_t>{"1a", 2}, {"2a", 1}, {"2b", 1}, {"4a", 1}})
      add(fmt::format("Conv2d_{}_3x3", name), {stride, stride}, name == std::string("2b") ? Pair{1, 1} : Pair{0, 0});
    add("Conv2d_3b_1x1");
    for (const char* block : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) {
      add_all(block, {"branch1x1", "branch5x5_1", "branch3x3dbl_1", "branch_pool"});
      add(block + std::string(".branch5x5_2"), {1, 1}, {2, 2});
      for (const char* each : {".branch3x3dbl_2", ".branch3x3dbl_3"}) add(block + std::string(each), {1, 1}, {1, 1});
    }
    add("Mixed_6a.branch3x3", {2, 2});
    add("Mixed_6a.branch3x3dbl_1");
    add("Mixed_6a.branch3x3dbl_2", {1, 1}, {1, 1});
    add("Mixed_6a.branch3x3dbl_3", {2, 2});
    for (const char* block : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"}) {
      add_all(block, {"branch1x1", "branch7x7_1", "branch7x7dbl_1", "branch_pool"});
      for (const char* wide : {".branch7x7_2", ".branch7x7dbl_3", ".branch7x7dbl_5"}) add(block + std::string(wide), {1, 1}, {0, 3});
      for (const char* tall : {".branch7x7_3", ".branch7x7dbl_2", ".branch7x7dbl_4"}) add(block + std::string(tall), {1, 1}, {3, 0});
    }
    add_all("Mixed_7a", {"branch3x3_1", "branch7x7x3_1"});
    add("Mixed_7a.branch3x3_2", {2, 2});
    add("Mixed_7a.branch7x7x3_2", {1, 1}, {0, 3});
    add("Mixed_7a.branch7x7x3_3", {1, 1}, {3, 0});
    add("Mixed_7a.branch7x7x3_4", {2, 2});
    for (const char* block : {"Mixed_7b", "Mixed_7c"}) {
      add_all(block, {"branch1x1", "branch3x3_1", "branch3x3dbl_1", "branch_pool"});
      add(block + std::string(".branch3x3dbl_2"), {1, 1}, {1, 1});
      for (const char* wide : {".branch3x3_2a", ".branch3x3dbl_3a"}) add(block + std::string(wide), {1, 1}, {0, 1});
      for (const char* tall : {".branch3x3_2b", ".branch3x3dbl_3b"}) add(block + std::string(tall), {1, 1}, {1, 0});
    }
    classes = to_torch(weights.at("fc.weight")).to(at::kFloat);
    if (classes.dim() != 2 || classes.size(1) != 2048) throw Error(fmt::format("fc.weight has shape {}", format_shape(classes.sizes().vec())));
    file = nullptr;
  }

  void add(const std::string& name, Pair stride = {1, 1}, Pair padding = {0, 0}) {
    convs.emplace(name, FoldedConv(*file, name, stride, padding, kEpsilon)).first->second.to(device, dtype);
  }
  void add_all(const std::string& block, std::initializer_list<const char*> names) {
    for (const char* name : names) add(block + "." + name);
  }

  at::Tensor conv(const std::string& name, const at::Tensor& x) { return convs.at(name)(x); }
  at::Tensor chain(const std::string& block, std::initializer_list<const char*> names, at::Tensor x) {
    for (const char* name : names) x = conv(block + "." + name, x);
    return x;
  }
  // Average-pool then 1x1 convolution; the two are linear and commute (padding is not counted), and the convolution leaves fewer channels to pool.
  at::Tensor pooled(const std::string& block, const at::Tensor& x) {
    const at::Tensor y = convs.at(block + ".branch_pool")(x, /*relu=*/false);
    return at::avg_pool2d(y, {3, 3}, {1, 1}, {1, 1}, /*ceil_mode=*/false, /*count_include_pad=*/false).relu_();
  }

  at::Tensor block_a(const std::string& b, const at::Tensor& x) {
    return at::cat({chain(b, {"branch1x1"}, x), chain(b, {"branch5x5_1", "branch5x5_2"}, x),
                    chain(b, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}, x), pooled(b, x)},
                   1);
  }
  at::Tensor block_b(const std::string& b, const at::Tensor& x) {
    return at::cat({chain(b, {"branch3x3"}, x), chain(b, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}, x), max_pool(x)}, 1);
  }
  at::Tensor block_c(const std::string& b, const at::Tensor& x) {
    return at::cat({chain(b, {"branch1x1"}, x), chain(b, {"branch7x7_1", "branch7x7_2", "branch7x7_3"}, x),
                    chain(b, {"branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"}, x), pooled(b, x)},
                   1);
  }
  at::Tensor block_d(const std::string& b, const at::Tensor& x) {
    return at::cat({chain(b, {"branch3x3_1", "branch3x3_2"}, x), chain(b, {"branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"}, x),
                    max_pool(x)},
                   1);
  }
  at::Tensor block_e(const std::string& b, const at::Tensor& x, bool max_pooled) {
    const at::Tensor y = chain(b, {"branch3x3_1"}, x), z = chain(b, {"branch3x3dbl_1", "branch3x3dbl_2"}, x);
    const at::Tensor pool = max_pooled ? chain(b, {"branch_pool"}, at::max_pool2d(x, {3, 3}, {1, 1}, {1, 1})) : pooled(b, x);
    return at::cat({chain(b, {"branch1x1"}, x), conv(b + ".branch3x3_2a", y), conv(b + ".branch3x3_2b", y), conv(b + ".branch3x3dbl_3a", z),
                    conv(b + ".branch3x3dbl_3b", z), pool},
                   1);
  }
  at::Tensor apply(const std::string& layer, const at::Tensor& x) {
    if (layer.starts_with("Conv2d")) return conv(layer, x);
    if (layer.starts_with("maxpool")) return max_pool(x);
    if (layer.starts_with("Mixed_5")) return block_a(layer, x);
    if (layer == "Mixed_6a") return block_b(layer, x);
    if (layer.starts_with("Mixed_6")) return block_c(layer, x);
    return layer == "Mixed_7a" ? block_d(layer, x) : block_e(layer, x, layer == "Mixed_7c");
  }

  const TensorFile* file;  ///< while the layers are made
  at::Device device;
  at::ScalarType dtype;
  std::map<std::string, FoldedConv> convs;
  at::Tensor classes;  ///< [1008, 2048] float32, on the CPU
};

Inception::Inception(const TensorFile& weights, const std::string& origin, std::string hash, const NetworkOptions& options)
    : hash_(std::move(hash)), options_(options) {
  if (options_.resize.empty()) options_.resize = "pytorch-fid";
  find_resize(options_.resize);
  if (options_.precision != "fp32" && options_.precision != "bf16")
    throw Error(fmt::format("precision '{}' of the feature network: there are fp32 and bf16", options_.precision));
  try {
    layers_ = std::make_unique<Layers>(weights, options_);
  } catch (const Error& e) {
    throw Error(fmt::format("{} holds no Inception-v3 of FID: {}", origin, e.what()));
  }
}

Inception::~Inception() = default;

std::vector<FeatureOutput> Inception::outputs() const {
  return {{"2048", OutputKind::features, 2048},
          {"768", OutputKind::features, 768},
          {"192", OutputKind::features, 192},
          {"64", OutputKind::features, 64},
          {"spatial", OutputKind::spatial, kSpatialChannels * 17 * 17},
          {"logits", OutputKind::logits, layers_->classes.size(0)}};
}

std::string Inception::preprocess() const {
  return fmt::format("RGB, {} to {} x {}, x / {} - 1", options_.resize, kSize, kSize, find_resize(options_.resize).inception_scale);
}

at::Tensor Inception::prepare(const at::Tensor& images) const {
  const torch::NoGradGuard no_grad;
  const ResizeRow& row = find_resize(options_.resize);
  const at::Tensor resized = row.resize(float_image(images, 3, "inception"), kSize, kSize);
  return resized.mul(1 / row.inception_scale).sub_(1).to(layers_->dtype, false, false, at::MemoryFormat::ChannelsLast);
}

void Inception::trace(const at::Tensor& prepared, const std::function<bool(const std::string&, const at::Tensor&)>& visit) {
  const torch::NoGradGuard no_grad;
  at::Tensor x = prepared.to(layers_->device);
  for (const char* layer : {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2", "Mixed_5b",
                            "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"}) {
    x = layers_->apply(layer, x);
    if (!visit(layer, x)) return;
  }
}

NamedFeatures Inception::run(const at::Tensor& prepared, const std::vector<std::string>& wanted) {
  const torch::NoGradGuard no_grad;
  const auto want = [&](const char* name) { return std::find(wanted.begin(), wanted.end(), name) != wanted.end(); };
  for (const std::string& name : wanted) output(name);
  NamedFeatures result;
  const auto put = [&](const char* name, const at::Tensor& value) {
    if (want(name)) result[name] = value.to(at::kCPU, at::kFloat).contiguous();
    return result.size() < wanted.size();
  };
  if (wanted.empty()) return result;
  trace(prepared, [&](const std::string& layer, const at::Tensor& x) {
    if (layer == "maxpool1") return put("64", mean_over_image(x));
    if (layer == "maxpool2") return put("192", mean_over_image(x));
    if (layer == "Mixed_6d") return put("spatial", x.narrow(1, 0, kSpatialChannels).permute({0, 2, 3, 1}).flatten(1));
    if (layer == "Mixed_6e") return put("768", mean_over_image(x));
    if (layer != "Mixed_7c") return true;
    const at::Tensor pooled = mean_over_image(x).cpu();
    put("2048", pooled);
    return put("logits", at::mm(pooled, layers_->classes.t()));
  });
  return result;
}

std::unique_ptr<FeatureNetwork> load_inception(const std::string& file, const NetworkOptions& options) {
  const std::string path = file.empty() ? options.weights : file;
  if (path.empty()) {
    throw Error(fmt::format("network inception needs its weights: get pt_inception-2015-12-05-{}.pth from pytorch-fid's releases and name the file "
                            "(--inception FILE)", kInceptionHash));
  }
  const std::string hash = sha256_of_file(path);
  if (!hash.starts_with(kInceptionHash)) {
    const std::string line = fmt::format("{} has SHA-256 {:.16}..., not the published weights' {}...", path, hash, kInceptionHash);
    if (!options.any_weights) throw Error(line + ": its scores compare with no published FID; --any-weights takes it all the same");
    spdlog::warn("{}: scores compare only with others of these weights", line);
  } else {
    spdlog::info("inception: {} with SHA-256 {}", path, hash);
  }
  const TensorFile weights = path.ends_with(".safetensors") ? read_safetensors(path) : read_pth_state_dict(path);
  return std::make_unique<Inception>(weights, path, hash, options);
}

}  // namespace uvit
