#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "commands/commands.h"
#include "core/error.h"
#include "data/dataset.h"
#include "data/image_io.h"
#include "data/latent_index.h"

namespace uvit {
namespace {

struct Arguments {
  DataConfig data;
  std::vector<std::int64_t> image_size;
  std::optional<std::int64_t> channels;
  std::string sheet;
  std::int64_t columns = 10, rows = 10;
};

void fill_defaults(Arguments& arguments) {
  DataConfig& data = arguments.data;
  for (const DatasetRow& row : dataset_table()) {
    if (row.name != data.dataset) continue;
    if (data.path.empty()) data.path = row.default_path;
    data.image_size = {row.native_size > 0 ? row.native_size : 64};
    data.channels = row.native_channels > 0 ? row.native_channels : 3;
    if (row.name != "latents") continue;  // whose index says more
    const LatentIndex index = read_latent_index(split_folder(data.path, true));
    data.image_size = {index.height, index.width};
    data.channels = index.channels;
    data.scale_factor = index.scale_factor;
  }
  if (!arguments.image_size.empty()) data.image_size = arguments.image_size;
  if (arguments.channels) data.channels = *arguments.channels;
}

/// Counts of the classes, the largest and the smallest ones by name.
void print_classes(const Dataset& dataset) {
  if (dataset.num_classes() == 0) return fmt::print("  no classes\n");
  std::vector<std::int64_t> counts(static_cast<std::size_t>(dataset.num_classes()), 0);
  for (std::int64_t i = 0; i < dataset.size(); ++i) ++counts.at(static_cast<std::size_t>(dataset.label(i)));
  const std::vector<std::string> names = dataset.class_names();
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  fmt::print("  {} classes of {} to {} images\n", counts.size(), *least, *most);
  constexpr std::size_t kShown = 20;
  for (std::size_t k = 0; k < std::min(kShown, counts.size()); ++k)
    fmt::print("    {:4} {:24} {}\n", k, k < names.size() ? names[k] : "", counts[k]);
  if (counts.size() > kShown) fmt::print("    and {} more\n", counts.size() - kShown);
}

void print_latents(const DataConfig& data, bool train) {
  const LatentIndex index = read_latent_index(split_folder(data.path, train));
  fmt::print("  latents of {}, scale factor {}, {}mirrored images, channel means [{:.3f}], standard deviations [{:.3f}]\n", index.source, index.scale_factor,
             index.flips ? "with " : "without ", fmt::join(index.mean, ", "), fmt::join(index.std, ", "));
  if (const auto captions = read_caption_index(split_folder(data.path, train)))
    fmt::print("  {} captions of {} tokens of width {}\n", captions->count, captions->tokens, captions->dim);
}

/// Images spread evenly over the set, so that a folder sorted by class shows all.
void write_sheet(const Dataset& dataset, const Arguments& arguments) {
  const std::int64_t count = std::min(arguments.columns * arguments.rows, dataset.size());
  std::vector<Image> images;
  for (std::int64_t i = 0; i < count; ++i) {
    Image image{dataset.channels(), dataset.height(), dataset.width(), {}};
    image.pixels.resize(static_cast<std::size_t>(image.channels * image.height * image.width));
    dataset.read(i * dataset.size() / count, image.pixels);
    images.push_back(std::move(image));
  }
  write_png(arguments.sheet, make_grid(images, arguments.columns));
  fmt::print("contact sheet of {} images: {}\n", count, arguments.sheet);
}

void run(Arguments arguments) {
  if (arguments.columns < 1 || arguments.rows < 1) throw UsageError("--rows and --columns must be at least 1");
  fill_defaults(arguments);
  const bool latent = is_latent_dataset(arguments.data.dataset);
  for (const Split split : {Split::train, Split::test}) {
    const bool train = split == Split::train;
    const std::unique_ptr<Dataset> dataset = open_dataset(arguments.data, split);
    fmt::print("{}: {} images, read as {} x {} x {} (channels x height x width)\n", train ? "train" : "test", dataset->size(), dataset->channels(),
               dataset->height(), dataset->width());
    if (arguments.data.dataset == "latents") print_latents(arguments.data, train);
    print_classes(*dataset);
    if (train && !arguments.sheet.empty()) {
      if (latent) throw Error("latents have no pixels to show: name the dataset that they were encoded from");
      write_sheet(*dataset, arguments);
    }
  }
}

}  // namespace

void add_data_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("data", "Counts, sizes and classes of a dataset, and a contact sheet");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DATA", arguments->data.dataset, "A row of `uvit list datasets`")->required();
  command->add_option("--data-path", arguments->data.path, "Where the dataset lies (default: the dataset's own place)");
  command->add_option("--image-size", arguments->image_size, "Pixels: side or height,width (default: the dataset's own, else 64)")->delimiter(',');
  command->add_option("--channels", arguments->channels, "1 grey, 3 RGB (default: the dataset's own, else 3)");
  command->add_option("--sheet", arguments->sheet, "PNG of images spread over the training split");
  command->add_option("--rows", arguments->rows, "Rows of the sheet");
  command->add_option("--columns", arguments->columns, "Columns of the sheet");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
