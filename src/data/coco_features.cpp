#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "core/error.h"
#include "data/datasets.h"
#include "data/posterior.h"
#include "io/npz.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// The folder that the official U-ViT code extracts from MS-COCO: I.npy holds the moments [2 C, h, w] of image I, I_K.npy the context [tokens, dim] of
/// its caption K; ../empty_context.npy that of the empty text.
class CocoFeatures : public Dataset {
 public:
  CocoFeatures(const DataConfig& config, const fs::path& folder) : config_(config), folder_(folder) {
    count_files();
    if (config.flip) throw Error(fmt::format("{} holds no mirrored images: set data.flip = false", folder.string()));
    const HostTensor first = read_npy(folder / "0.npy");
    check_shape(folder / "0.npy", first, {2 * config.channels, config.height(), config.width()});
    empty_ = read_npy(folder.parent_path() / "empty_context.npy");
    if (empty_.shape.size() != 2 || empty_.dtype != DType::f32)
      throw Error(fmt::format("{} is no float32 [tokens, dim]", (folder.parent_path() / "empty_context.npy").string()));
  }
  std::int64_t size() const override { return size_; }
  std::int64_t channels() const override { return config_.channels; }
  std::int64_t height() const override { return config_.height(); }
  std::int64_t width() const override { return config_.width(); }
  std::int64_t num_classes() const override { return 0; }
  std::int64_t label(std::int64_t) const override { return 0; }
  std::string describe(std::int64_t index) const override { return (folder_ / fmt::format("{}.npy", index)).string(); }
  bool latent() const override { return true; }
  std::int64_t context_tokens() const override { return empty_.shape[0]; }
  std::int64_t context_dim() const override { return empty_.shape[1]; }
  void read(std::int64_t, std::span<std::uint8_t>) const override { throw Error(fmt::format("{} holds latents, no pixels", folder_.string())); }

  void read_values(std::int64_t index, const SampleDraw& draw, std::span<float> values) const override {
    const HostTensor moments = read_npy(describe(index));
    check_shape(describe(index), moments, {2 * config_.channels, config_.height(), config_.width()});
    draw_posterior({moments.as<float>(), 2 * values.size()}, config_.scale_factor, draw, values);
  }
  void read_context(std::int64_t index, const SampleDraw& draw, std::span<float> values) const override {
    const std::int64_t caption = choose_caption(draw, captions_[static_cast<std::size_t>(index)]);
    const fs::path path = folder_ / fmt::format("{}_{}.npy", index, caption);
    const HostTensor context = read_npy(path);
    check_shape(path, context, empty_.shape);
    std::copy_n(context.as<float>(), values.size(), values.begin());
  }
  void read_empty_context(std::span<float> values) const override { std::copy_n(empty_.as<float>(), values.size(), values.begin()); }

 private:
  static void check_shape(const fs::path& path, const HostTensor& tensor, const std::vector<std::int64_t>& shape) {
    if (tensor.dtype != DType::f32 || tensor.shape != shape)
      throw Error(fmt::format("{} holds {} {}, and float32 {} is wanted (data.channels, data.image_size)", path.string(), name_of(tensor.dtype),
                              format_shape(tensor.shape), format_shape(shape)));
  }

  /// Images are numbered from 0 without a gap, and so are the captions of each.
  void count_files() {
    std::error_code failed;
    for (const auto& entry : fs::directory_iterator(folder_, failed)) {
      const std::string name = entry.path().filename().string(), stem = entry.path().stem().string();
      if (!name.ends_with(".npy")) continue;
      std::int64_t image = -1, caption = -1;
      const char* end = stem.data() + stem.size();
      auto parsed = std::from_chars(stem.data(), end, image);
      if (parsed.ec != std::errc() || image < 0) continue;
      if (parsed.ptr == end) {
        size_ = std::max(size_, image + 1);
      } else if (*parsed.ptr == '_' && std::from_chars(parsed.ptr + 1, end, caption).ptr == end) {
        if (static_cast<std::size_t>(image) >= captions_.size()) captions_.resize(static_cast<std::size_t>(image) + 1, 0);
        ++captions_[static_cast<std::size_t>(image)];
      }
    }
    if (failed) throw Error(fmt::format("cannot read folder {}: {}", folder_.string(), failed.message()));
    if (size_ == 0) throw Error(fmt::format("{} holds no latents 0.npy, 1.npy, ...: set data.path to the folder above train/ and val/", folder_.string()));
    captions_.resize(static_cast<std::size_t>(size_), 0);
    for (std::size_t i = 0; i < captions_.size(); ++i)
      if (captions_[i] == 0) throw Error(fmt::format("image {} of {} has no caption {}_0.npy", i, folder_.string(), i));
    if (config_.limit > 0) size_ = std::min(size_, config_.limit);
  }

  DataConfig config_;
  fs::path folder_;
  std::int64_t size_ = 0;
  std::vector<std::int64_t> captions_;  // number of captions of each image
  HostTensor empty_;
};

}  // namespace

std::unique_ptr<Dataset> open_coco_features(const DataConfig& config, Split split) {
  if (config.path.empty()) throw Error("dataset coco_features has no default place: set data.path to the folder above train/ and val/");
  return std::make_unique<CocoFeatures>(config, fs::path(config.path) / (split == Split::train ? "train" : "val"));
}

}  // namespace uvit
