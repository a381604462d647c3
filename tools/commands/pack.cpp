#include <torch/torch.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "commands/commands.h"
#include "config/keys.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "data/pack.h"
#include "data/shard_index.h"
#include "train/interrupt.h"
#include "train/text_context.h"
#include "train/trainer.h"

namespace uvit {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string data, out, captions, split = "both";
  DataConfig config;
  std::vector<std::int64_t> image_size;
  std::optional<std::int64_t> channels;
  double shard_megabytes = 512;
  std::int64_t threads = 2;
  bool skip_broken = false, verify = false;
};

/// DATA is a row of the dataset table, else a folder of images; a folder may have the name of a row that has no place of its own.
DataConfig resolved_data(const Arguments& arguments) {
  DataConfig data = arguments.config;
  const bool row = std::any_of(dataset_table().begin(), dataset_table().end(), [&](const DatasetRow& r) {
    return r.name == arguments.data && !(r.default_path.empty() && data.path.empty() && fs::is_directory(arguments.data));
  });
  data.dataset = row ? arguments.data : "folder";
  if (!row) data.path = arguments.data;
  if (!row && !fs::is_directory(data.path))
    throw Error(fmt::format("'{}' is neither a folder of images nor a dataset: see uvit list datasets", arguments.data));
  for (const DatasetRow& r : dataset_table()) {
    if (r.name != data.dataset) continue;
    if (r.latent) throw Error(fmt::format("dataset {} holds latents, which lie in shards already", r.name));
    data.image_size = {r.native_size > 0 ? r.native_size : 1};
    data.channels = r.native_channels > 0 ? r.native_channels : 3;
  }
  if (!arguments.image_size.empty()) data.image_size = arguments.image_size;
  if (arguments.channels) data.channels = *arguments.channels;
  Config config;
  config.data = data;
  for (const ConfigKey& key : config_keys())
    if (key.section == "data") check_range(key, config);
  return data;
}

bool same_images(const Dataset& a, const Dataset& b) {
  if (a.size() != b.size()) return false;
  for (std::int64_t i = 0; i < a.size(); ++i)
    if (a.describe(i) != b.describe(i)) return false;
  return true;
}

/// Captions of a file, by image.
std::function<std::vector<std::string>(std::int64_t)> captions_of(const std::string& path) {
  if (path.empty()) return {};
  auto texts = std::make_shared<std::map<std::int64_t, std::vector<std::string>>>();
  for (Caption& caption : read_captions(path)) (*texts)[caption.image].push_back(std::move(caption.text));
  return [texts](std::int64_t image) {
    const auto found = texts->find(image);
    return found == texts->end() ? std::vector<std::string>{} : found->second;
  };
}

void pack_split(const Dataset& dataset, const Arguments& arguments, const DataConfig& data, const fs::path& folder, const std::string& shown) {
  make_directories(folder);
  PackRequest request;
  request.out = folder;
  request.source = data.path.empty() ? data.dataset : fmt::format("{} {}", data.dataset, fs::path(data.path).filename().string());
  request.shard_bytes = static_cast<std::uint64_t>(arguments.shard_megabytes * 1024 * 1024);
  request.threads = arguments.threads;
  request.pixels = !arguments.image_size.empty();
  request.skip_broken = arguments.skip_broken;
  request.captions = captions_of(arguments.captions);
  request.stop = interrupt_requested;
  const PackResult result = pack_dataset(dataset, request);
  fmt::print("{}: {} images, {} classes, {} captions in {} shards of {:.1f} MB{}\n", shown, result.images, dataset.num_classes(), result.captions, result.shards,
             static_cast<double>(result.bytes) / 1e6, result.skipped > 0 ? fmt::format("; {} broken images left out", result.skipped) : "");
}

void pack_splits(const Arguments& arguments, const fs::path& out, const fs::path& temporary) {
  const DataConfig data = resolved_data(arguments);
  const bool both = arguments.split == "both";
  const std::unique_ptr<Dataset> train = arguments.split != "test" ? open_dataset(data, Split::train) : nullptr;
  const std::unique_ptr<Dataset> test = arguments.split != "train" ? open_dataset(data, Split::test) : nullptr;
  if (both && same_images(*train, *test)) return pack_split(*train, arguments, data, temporary, out.string());
  if (both && !arguments.captions.empty()) throw UsageError("--captions are of one split: give --split train or --split test");
  if (train) pack_split(*train, arguments, data, temporary / "train", (out / "train").string());
  if (test) pack_split(*test, arguments, data, temporary / "test", (out / "test").string());
}

void verify(const fs::path& path) {
  for (const char* name : {"", "train", "test", "val"}) {
    const fs::path folder = *name ? path / name : path;
    if (!fs::exists(folder / "index.json")) continue;
    const ShardIndex index = read_shard_index(folder);
    const std::uint64_t bytes = verify_shards(index);
    fmt::print("{}: {} samples in {} shards of {:.1f} MB, as they were packed\n", folder.string(), index.samples.size(), index.shards.size(),
               static_cast<double>(bytes) / 1e6);
  }
}

void run(const Arguments& arguments) {
  if (arguments.verify) {
    if (!fs::exists(fs::path(arguments.data) / "index.json") && !fs::exists(fs::path(arguments.data) / "train/index.json"))
      throw Error(fmt::format("{} holds no index.json: name a folder that `uvit pack` wrote", arguments.data));
    return verify(arguments.data);
  }
  if (arguments.out.empty()) throw UsageError("pack: give the folder to write, -o SHARDS");
  if (arguments.split != "train" && arguments.split != "test" && arguments.split != "both") throw UsageError("--split: train, test or both");
  if (arguments.image_size.size() > 2) throw UsageError("--image-size: one side, or height and width");
  if (arguments.threads < 1 || arguments.threads > 256) throw UsageError("--threads: from 1 to 256");
  if (!(arguments.shard_megabytes > 0 && arguments.shard_megabytes < 1e9)) throw UsageError("--shard-size: megabytes, above 0");
  install_signal_handlers();
  const fs::path out = fs::path(arguments.out).has_filename() ? fs::path(arguments.out) : fs::path(arguments.out).parent_path();
  if (fs::exists(out)) throw Error(fmt::format("{} is there already: choose another folder, or remove it", out.string()));
  fs::path temporary = out;
  temporary += fmt::format(".tmp-{}", getpid());
  try {
    make_directories(temporary);
    pack_splits(arguments, out, temporary);
    sync_path(temporary);
    std::error_code code;
    fs::rename(temporary, out, code);
    if (code) throw Error(fmt::format("cannot write {}: {}", out.string(), code.message()));
    sync_path(out.has_parent_path() ? out.parent_path() : ".");
  } catch (...) {
    std::error_code code;
    fs::remove_all(temporary, code);
    throw;
  }
}

}  // namespace

void add_pack_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("pack", "Pack a dataset of images into tar shards (webdataset) with labels and captions, for the dataset `shards`");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DATA", arguments->data, "A folder of images, or a row of `uvit list datasets`; with --verify: the shards")->required();
  command->add_option("-o,--out", arguments->out, "Folder to write, which must not exist: train/ and test/ of it where the data has both");
  command->add_option("--data-path", arguments->config.path, "Where the dataset lies (default: the dataset's own place)");
  command->add_option("--image-size", arguments->image_size, "Store PNGs scaled and cut to this: side, or height,width (default: the files as they are)")->delimiter(',');
  command->add_option("--channels", arguments->channels, "Of those PNGs: 1 grey, 3 RGB (default: the dataset's own, else 3)");
  command->add_option("--captions", arguments->captions, "File of captions, as for encode-text (a .txt beside an image is taken by itself)");
  command->add_option("--split", arguments->split, "train, test or both");
  command->add_option("--limit", arguments->config.limit, "Only the first images of each split; 0: all");
  command->add_option("--shard-size", arguments->shard_megabytes, "MiB after which a shard is closed");
  command->add_option("--threads", arguments->threads, "Images read and encoded at a time");
  command->add_flag("--skip-broken", arguments->skip_broken, "Leave damaged images out, with a warning, in place of stopping");
  command->add_flag("--verify", arguments->verify, "Compare every shard with its checksum");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
