#include <catch2/catch.hpp>

#include "data/dataset.h"
#include "data_files.h"

using namespace uvit;
using namespace uvit::test;
namespace fs = std::filesystem;

namespace {

DataConfig folder_config(const fs::path& path, std::int64_t channels = 3) {
  DataConfig config;
  config.dataset = "folder";
  config.path = path.string();
  config.image_size = {4};
  config.channels = channels;
  return config;
}

void put_image(const fs::path& path, std::uint32_t seed, std::int64_t height = 4, std::int64_t width = 4, std::int64_t channels = 3) {
  fs::create_directories(path.parent_path());
  write_png(path, pattern_image(channels, height, width, seed));
}

std::vector<std::string> names(const Dataset& dataset) {
  std::vector<std::string> result;
  for (std::int64_t i = 0; i < dataset.size(); ++i) result.push_back(fs::path(dataset.describe(i)).filename().string());
  return result;
}

Bytes read_at(const Dataset& dataset, std::int64_t index) {
  Bytes pixels(static_cast<std::size_t>(dataset.channels() * dataset.height() * dataset.width()));
  dataset.read(index, pixels);
  return pixels;
}

}  // namespace

TEST_CASE("a folder without sub-folders is a set without classes, sorted by name; both splits are the same") {
  const ScratchFolder folder;
  for (const int i : {10, 9, 1, 2}) put_image(folder.path() / (std::to_string(i) + ".png"), static_cast<std::uint32_t>(i));
  put(folder.path() / "notes.txt", {'x'});
  put(folder.path() / ".hidden.png", {'x'});
  for (const Split split : {Split::train, Split::test}) {
    const auto dataset = open_dataset(folder_config(folder.path()), split);
    CHECK(names(*dataset) == std::vector<std::string>{"1.png", "10.png", "2.png", "9.png"});
    CHECK(dataset->num_classes() == 0);
    CHECK(read_at(*dataset, 1) == pattern(48, 10));
  }
  auto config = folder_config(folder.path());
  config.limit = 3;
  CHECK(open_dataset(config, Split::train)->size() == 3);
  config.num_classes = 4;
  check_error([&] { open_dataset(config, Split::train); }, {"data.num_classes is 4", "0 classes"});
}

TEST_CASE("a sub-folder is a class, images deeper down belong to it, a folder without images is none") {
  const ScratchFolder folder;
  put_image(folder.path() / "dog/a.png", 1);
  put_image(folder.path() / "cat/z.PNG", 2);
  put_image(folder.path() / "cat/deep/b.png", 3);
  fs::create_directories(folder.path() / "empty");
  const auto dataset = open_dataset(folder_config(folder.path()), Split::train);
  CHECK(dataset->class_names() == std::vector<std::string>{"cat", "dog"});
  CHECK(names(*dataset) == std::vector<std::string>{"b.png", "z.PNG", "a.png"});
  CHECK(dataset->label(0) == 0);
  CHECK(dataset->label(1) == 0);
  CHECK(dataset->label(2) == 1);
  put_image(folder.path() / "stray.png", 4);
  check_error([&] { open_dataset(folder_config(folder.path()), Split::train); }, {"stray.png", "class folders"});
}

TEST_CASE("train/ beside test/ or val/ are splits with the classes of train/") {
  for (const std::string held_out : {"test", "val"}) {
    const ScratchFolder folder;
    put_image(folder.path() / "train/dog/a.png", 1);
    put_image(folder.path() / "train/cat/b.png", 2);
    put_image(folder.path() / held_out / "dog/c.png", 3);
    const auto train = open_dataset(folder_config(folder.path()), Split::train), test = open_dataset(folder_config(folder.path()), Split::test);
    CHECK(names(*train) == std::vector<std::string>{"b.png", "a.png"});
    CHECK(names(*test) == std::vector<std::string>{"c.png"});
    CHECK(test->num_classes() == 2);
    CHECK(test->label(0) == 1);
    put_image(folder.path() / held_out / "doq/d.png", 4);
    check_error([&] { open_dataset(folder_config(folder.path()), Split::test); }, {"doq", "dog", held_out});
  }
}

TEST_CASE("train/ alone is both splits; beside other folders it is a class") {
  const ScratchFolder folder;
  put_image(folder.path() / "train/a.png", 1);
  CHECK(names(*open_dataset(folder_config(folder.path()), Split::test)) == std::vector<std::string>{"a.png"});
  CHECK(open_dataset(folder_config(folder.path()), Split::train)->num_classes() == 0);
  put_image(folder.path() / "plane/b.png", 1);
  CHECK(open_dataset(folder_config(folder.path()), Split::train)->class_names() == std::vector<std::string>{"plane", "train"});
}

TEST_CASE("images of a folder are resized, cut and converted when they are read") {
  const ScratchFolder folder;
  put_image(folder.path() / "a.png", 1, 9, 12, 3);
  put_image(folder.path() / "b.png", 2, 8, 8, 1);
  put_image(folder.path() / "c.png", 3, 4, 8, 4);
  for (const std::int64_t channels : {1, 3, 4}) {
    const auto dataset = open_dataset(folder_config(folder.path(), channels), Split::train);
    CHECK(read_at(*dataset, 0) == resize_and_center_crop(convert_channels(pattern_image(3, 9, 12, 1), channels), 4, 4).pixels);
    CHECK(read_at(*dataset, 1) == resize_and_center_crop(convert_channels(pattern_image(1, 8, 8, 2), channels), 4, 4).pixels);
    CHECK(read_at(*dataset, 2) == resize_and_center_crop(convert_channels(pattern_image(4, 4, 8, 3), channels), 4, 4).pixels);
  }
}

TEST_CASE("a folder's bad images and bad folders are named") {
  const ScratchFolder folder;
  check_error([&] { open_dataset(folder_config(folder.path() / "absent"), Split::train); }, {"absent", "no folder"});
  put_image(folder.path() / "small.png", 1, 3, 9);
  put(folder.path() / "text.png", {'h', 'e', 'l', 'l', 'o'});
  const auto dataset = open_dataset(folder_config(folder.path()), Split::train);
  check_error([&] { read_at(*dataset, 0); }, {"small.png", "3 x 9", "4 x 4"});
  check_error([&] { read_at(*dataset, 1); }, {"text.png", "JPEG, PNG, WebP or BMP"});
}
