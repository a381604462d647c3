#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include "core/error.h"
#include "core/printable.h"
#include "data/image_folder.h"
#include "data/shard_index.h"
#include "io/file_descriptor.h"
#include "io/tar.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// Name up to the first dot after the last slash, and what follows it: webdataset's key and ending.
std::pair<std::string, std::string> split_name(const std::string& name) {
  const std::size_t slash = name.rfind('/'), from = slash == std::string::npos ? 0 : slash + 1, dot = name.find('.', from);
  if (dot == std::string::npos) return {name, ""};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

/// Gathers the members of one shard into samples.
class ShardScan {
 public:
  ShardScan(const fs::path& path, std::uint32_t number, ShardIndex& index, std::optional<bool>& labelled)
      : path_(path), file_(path), number_(number), index_(index), labelled_(labelled) {}

  void run() {
    for (const TarMember& member : list_tar(path_)) {
      const auto [key, ending] = split_name(member.name);
      if (key.empty() || ending.empty()) continue;
      if (open_ && key != key_) finish();
      if (!open_) start(key);
      if (is_image_name("." + ending))
        take_image(member);
      else if (ending == "cls")
        take_class(member);
      else if (ending == "txt" || ending == "json")
        take_caption(member, ending);
    }
    if (open_) finish();
    index_.shards.push_back({path_, file_.size(), count_, ""});
  }

 private:
  void start(const std::string& key) {
    open_ = true;
    key_ = key;
    sample_ = ShardSample{};
    sample_.shard = number_;
    class_.reset();
    text_ = false;
  }
  void take_image(const TarMember& member) {
    if (sample_.size > 0) throw wrong("has two images");
    if (member.size == 0 || member.size > std::numeric_limits<std::uint32_t>::max()) throw wrong(fmt::format("has an image of {} bytes", member.size));
    sample_.offset = member.offset;
    sample_.size = static_cast<std::uint32_t>(member.size);
  }
  void take_class(const TarMember& member) {
    constexpr std::uint64_t kLongest = 32;
    constexpr std::uint32_t kMostClasses = 1 << 20;
    std::string text(std::min(member.size, kLongest), '\0');
    file_.read(std::as_writable_bytes(std::span(text)), member.offset);
    std::string_view digits = text;
    while (digits.starts_with(' ')) digits.remove_prefix(1);
    while (!digits.empty() && (digits.back() == '\n' || digits.back() == ' ' || digits.back() == '\r')) digits.remove_suffix(1);
    std::uint32_t label = 0;
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), label);
    if (code != std::errc() || end != digits.data() + digits.size() || label >= kMostClasses)
      throw wrong(fmt::format("has the class '{}', which is no number below {}", printable(text), kMostClasses));
    class_ = label;
  }
  void take_caption(const TarMember& member, const std::string& ending) {
    constexpr std::uint64_t kLongest = 1 << 24;
    if (text_ || member.size > kLongest) return;  // a .txt goes before a .json, which may hold other things than captions
    sample_.caption_offset = member.offset;
    sample_.caption_size = static_cast<std::uint32_t>(member.size);
    text_ = ending == "txt";
  }
  void finish() {
    open_ = false;
    if (sample_.size == 0) throw wrong("has no image (.jpg .jpeg .png .webp .bmp)");
    if (!labelled_) labelled_ = class_.has_value();
    if (*labelled_ != class_.has_value())
      throw wrong(class_ ? "has a class (.cls), but those before it have none" : "has no class (.cls), but those before it have one");
    sample_.label = class_.value_or(0);
    if (class_) index_.num_classes = std::max<std::int64_t>(index_.num_classes, sample_.label + std::int64_t{1});
    index_.samples.push_back(sample_);
    ++count_;
  }
  Error wrong(const std::string& what) const { return Error(fmt::format("sample {} of {} {}", printable(key_), path_.string(), what)); }

  const fs::path& path_;
  InputFile file_;
  std::uint32_t number_;
  ShardIndex& index_;
  std::optional<bool>& labelled_;  // whether samples have classes; unknown before the first
  std::uint64_t count_ = 0;
  bool open_ = false, text_ = false;
  std::string key_;
  ShardSample sample_;
  std::optional<std::uint32_t> class_;
};

std::vector<fs::path> tar_files(const fs::path& folder) {
  std::vector<fs::path> tars;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".tar" && entry.is_regular_file()) tars.push_back(entry.path());
  std::sort(tars.begin(), tars.end());
  return tars;
}

}  // namespace

ShardIndex list_shards(const std::vector<fs::path>& tars) {
  ShardIndex index;
  std::optional<bool> labelled;
  for (const fs::path& path : tars) ShardScan(path, static_cast<std::uint32_t>(index.shards.size()), index, labelled).run();
  return index;
}

ShardIndex find_shards(const fs::path& path, bool train) {
  if (fs::is_regular_file(path)) return list_shards({path});
  if (!fs::is_directory(path)) throw Error(fmt::format("{} is neither a folder nor a tar file: set data.path to the folder of the shards", path.string()));
  fs::path folder = path;
  const std::vector<const char*> names = train ? std::vector<const char*>{"train"} : std::vector<const char*>{"test", "val", "train"};
  for (const char* name : names) {
    if (!fs::is_directory(path / name)) continue;
    folder = path / name;
    break;
  }
  if (fs::exists(folder / "index.json")) return read_shard_index(folder);
  const std::vector<fs::path> tars = tar_files(folder);
  if (tars.empty()) throw Error(fmt::format("{} holds neither index.json nor a .tar file: make shards with `uvit pack`, or set data.path", folder.string()));
  return list_shards(tars);
}

}  // namespace uvit
