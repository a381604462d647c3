#include "data/file_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/encoded_image.h"

namespace uvit {

std::string ending_of(const std::string& name) {
  std::string ending = name.substr(name.rfind('.') + 1);
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return ending;
}

namespace {

class FileDataset : public Dataset, public EncodedImages {
 public:
  FileDataset(FileList list, const DataConfig& config) : list_(std::move(list)), config_(config) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(list_.files.size()); }
  std::int64_t channels() const override { return config_.channels; }
  std::int64_t height() const override { return config_.height(); }
  std::int64_t width() const override { return config_.width(); }
  std::int64_t num_classes() const override { return list_.num_classes; }
  std::vector<std::string> class_names() const override { return list_.class_names; }
  std::int64_t label(std::int64_t index) const override { return list_.labels.empty() ? 0 : list_.labels.at(static_cast<std::size_t>(index)); }
  std::string describe(std::int64_t index) const override { return list_.files.at(static_cast<std::size_t>(index)).string(); }
  void read(std::int64_t index, std::span<std::uint8_t> pixels) const override {
    const std::filesystem::path& path = list_.files.at(static_cast<std::size_t>(index));
    if (!list_.prepare) {
      const std::string file = read_file(path);
      return decode_fitted(std::as_bytes(std::span(file)), config_.channels, config_.height(), config_.width(), path.string(), pixels, config_.jpeg_scaling);
    }
    const Image image = read_image(path, config_.channels);
    try {
      const Image cut = resize_and_center_crop(list_.prepare(image), config_.height(), config_.width());
      std::copy(cut.pixels.begin(), cut.pixels.end(), pixels.begin());
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", path.string(), error.what()));
    }
  }
  EncodedImage encoded(std::int64_t index) const override {
    std::filesystem::path path = list_.files.at(static_cast<std::size_t>(index));
    if (list_.prepare) {  // what is cut out stays out, without loss
      const Image image = list_.prepare(read_image(path, config_.channels));
      return {encode_png(image), "png", {}};
    }
    const std::string file = read_file(path);
    const std::span bytes = std::as_bytes(std::span(file));
    EncodedImage image{{bytes.begin(), bytes.end()}, ending_of(path.string()), {}};
    path.replace_extension(".txt");
    std::error_code no_name;  // one that is too long, say
    if (std::filesystem::is_regular_file(path, no_name)) image.captions = {read_file(path)};
    return image;
  }

 private:
  FileList list_;
  DataConfig config_;
};

/// The number that the whole text is, or -1.
std::int64_t as_number(const std::string& text) {
  std::int64_t value = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size() && value >= 0 ? value : -1;
}

}  // namespace

std::unique_ptr<Dataset> make_file_dataset(FileList list, const DataConfig& config, const std::string& origin) {
  if (list.files.empty()) throw Error(fmt::format("{} lists no image", origin));
  if (config.limit > 0 && static_cast<std::int64_t>(list.files.size()) > config.limit) list.files.resize(static_cast<std::size_t>(config.limit));
  return std::make_unique<FileDataset>(std::move(list), config);
}

void assign_classes(FileList& list, const std::vector<std::string>& classes) {
  constexpr std::int64_t kMostClasses = 1 << 20;
  const bool numbers = std::all_of(classes.begin(), classes.end(), [](const std::string& name) { return as_number(name) >= 0; });
  if (!numbers) {
    list.class_names = classes;
    std::sort(list.class_names.begin(), list.class_names.end());
    list.class_names.erase(std::unique(list.class_names.begin(), list.class_names.end()), list.class_names.end());
    list.num_classes = static_cast<std::int64_t>(list.class_names.size());
  }
  for (const std::string& name : classes) {
    const std::int64_t label =
        numbers ? as_number(name) : std::lower_bound(list.class_names.begin(), list.class_names.end(), name) - list.class_names.begin();
    if (label >= kMostClasses) throw Error(fmt::format("class number {} is larger than {}", label, kMostClasses - 1));
    list.labels.push_back(label);
    list.num_classes = std::max(list.num_classes, label + 1);
  }
}

}  // namespace uvit
