#include "metrics/image_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "data/image_folder.h"

namespace uvit {

ImageSource folder_source(const std::string& folder, std::int64_t channels, std::int64_t limit) {
  auto files = std::make_shared<std::vector<std::filesystem::path>>(list_images(folder));
  if (limit > 0 && files->size() > static_cast<std::size_t>(limit)) files->resize(static_cast<std::size_t>(limit));
  ImageSource source;
  source.count = static_cast<std::int64_t>(files->size());
  source.read = [files, channels](std::int64_t i) { return read_image((*files)[static_cast<std::size_t>(i)], channels); };
  source.name = [files](std::int64_t i) { return (*files)[static_cast<std::size_t>(i)].string(); };
  return source;
}

ImageSource dataset_source(std::shared_ptr<const Dataset> dataset, std::int64_t limit) {
  ImageSource source;
  source.count = limit > 0 ? std::min(limit, dataset->size()) : dataset->size();
  source.read = [dataset](std::int64_t i) {
    Image image{dataset->channels(), dataset->height(), dataset->width(), {}};
    image.pixels.resize(static_cast<std::size_t>(image.channels * image.height * image.width));
    dataset->read(i, image.pixels);
    return image;
  };
  source.name = [dataset](std::int64_t i) { return dataset->describe(i); };
  if (dataset->num_classes() > 0) {
    for (std::int64_t i = 0; i < source.count; ++i) source.labels.push_back(dataset->label(i));
  }
  return source;
}

ImageSource dataset_source(const Dataset& dataset, std::int64_t limit) {
  return dataset_source(std::shared_ptr<const Dataset>(std::shared_ptr<const Dataset>(), &dataset), limit);  // owns nothing
}

ImageSource memory_source(const std::vector<Image>& images, std::vector<std::int64_t> labels) {
  ImageSource source;
  source.count = static_cast<std::int64_t>(images.size());
  source.read = [&images](std::int64_t i) { return images[static_cast<std::size_t>(i)]; };
  source.labels = std::move(labels);
  return source;
}

ImageSource npz_source(const TensorFile& npz, const std::string& origin, std::int64_t limit) {
  auto pixels = std::make_shared<HostTensor>(npz.at("arr_0"));
  const std::vector<std::int64_t> shape = pixels->shape;
  const bool images = pixels->dtype == DType::u8 && shape.size() == 4 && (shape[3] == 1 || shape[3] == 3 || shape[3] == 4) && pixels->numel() > 0;
  if (!images) throw Error(fmt::format("{}: arr_0 is {}, not uint8 images [N, H, W, 1 or 3 or 4]", origin, format_shape(shape)));
  ImageSource source;
  source.count = limit > 0 ? std::min(limit, shape[0]) : shape[0];
  source.read = [pixels, shape](std::int64_t i) {
    Image image{shape[3], shape[1], shape[2], std::vector<std::uint8_t>(static_cast<std::size_t>(shape[1] * shape[2] * shape[3]))};
    const std::size_t area = static_cast<std::size_t>(shape[1] * shape[2]), channels = static_cast<std::size_t>(shape[3]);
    const std::uint8_t* from = pixels->as<std::uint8_t>() + static_cast<std::size_t>(i) * area * channels;
    for (std::size_t p = 0; p < area; ++p)
      for (std::size_t c = 0; c < channels; ++c) image.pixels[c * area + p] = *from++;
    return image;
  };
  source.name = [origin](std::int64_t i) { return fmt::format("{}[{}]", origin, i); };
  const HostTensor* labels = npz.find("arr_1");
  if (!labels || labels->numel() != shape[0]) return source;
  for (const double label : labels->to_double()) source.labels.push_back(static_cast<std::int64_t>(label));
  source.labels.resize(static_cast<std::size_t>(source.count));
  return source;
}

}  // namespace uvit
