#include <fmt/format.h>

#include "data/datasets.h"
#include "data_files.h"
#include "io/zip_archive.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

/// A grey PNG of side x side pixels, all of this value.
Image plain(std::int64_t height, std::int64_t width, std::uint8_t value) {
  return {1, height, width, Bytes(static_cast<std::size_t>(height * width), value)};
}

void put_image(const fs::path& path, const Image& image) {
  fs::create_directories(path.parent_path());
  write_png(path, image);
}

void put_text(const fs::path& path, const std::string& text) { put(path, Bytes(text.begin(), text.end())); }

DataConfig config_of(const std::string& dataset, const fs::path& path, std::int64_t side = 4) {
  DataConfig config;
  config.dataset = dataset;
  config.path = path.string();
  config.image_size = {side};
  config.channels = 1;
  return config;
}

/// First pixel and label of every image.
std::vector<std::pair<int, std::int64_t>> contents(const Dataset& dataset) {
  std::vector<std::pair<int, std::int64_t>> result;
  Bytes pixels(static_cast<std::size_t>(dataset.channels() * dataset.height() * dataset.width()));
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    dataset.read(i, pixels);
    result.emplace_back(pixels[0], dataset.label(i));
  }
  return result;
}

using Contents = std::vector<std::pair<int, std::int64_t>>;

}  // namespace

TEST_CASE("class lists are read from csv and json, with names or numbers, and per split from a folder") {
  const ScratchFolder folder;
  for (int i = 0; i < 3; ++i) put_image(folder / fmt::format("images/{}.png", i), plain(4, 4, static_cast<std::uint8_t>(10 * i)));
  put_text(folder / "train.csv", "file,class\nimages/2.png,dog\nimages/0.png,cat\n\nimages/1.png,dog\r\n");
  put_text(folder / "test.csv", "images/1.png,cat\n");
  const auto named = open_dataset(config_of("listed", folder / "train.csv"), Split::train);
  CHECK(named->class_names() == std::vector<std::string>{"cat", "dog"});
  CHECK(contents(*named) == Contents{{20, 1}, {0, 0}, {10, 1}});
  CHECK(contents(*open_dataset(config_of("listed", folder.path()), Split::test)) == Contents{{10, 0}});

  put_text(folder / "pairs.json", R"({"labels": [["images/1.png", 4], ["images/0.png", 0]]})");
  const auto numbered = open_dataset(config_of("listed", folder / "pairs.json"), Split::train);
  CHECK(numbered->num_classes() == 5);
  CHECK(contents(*numbered) == Contents{{10, 4}, {0, 0}});
  put_text(folder / "map.json", R"({"images/2.png": "x", "images/0.png": "y"})");
  CHECK(contents(*open_dataset(config_of("listed", folder / "map.json"), Split::train)) == Contents{{20, 0}, {0, 1}});

  put_text(folder / "bad.csv", "images/0.png\n");
  check_error([&] { open_dataset(config_of("listed", folder / "bad.csv"), Split::train); }, {"bad.csv", "line 1"});
  put_text(folder / "bad.json", "[3]");
  check_error([&] { open_dataset(config_of("listed", folder / "bad.json"), Split::train); }, {"bad.json", "[FILE, CLASS]"});
}

TEST_CASE("CelebA's partition gives the splits, and faces are cut about (89, 121)") {
  const ScratchFolder folder;
  put_text(folder / "list_eval_partition.txt", "a.jpg.png 0\nb.png 2\nc.png 1\nd.png 0\n");
  Image face = plain(218, 178, 7);
  for (std::int64_t y = 57; y < 185; ++y)
    for (std::int64_t x = 25; x < 153; ++x) face.pixels[static_cast<std::size_t>(y * 178 + x)] = 200;
  for (const char* name : {"a.jpg.png", "b.png", "c.png", "d.png"}) put_image(folder / "img_align_celeba" / name, face);
  const auto train = open_dataset(config_of("celeba", folder.path(), 64), Split::train);
  CHECK(train->size() == 2);
  CHECK(open_dataset(config_of("celeba", folder.path(), 64), Split::test)->size() == 1);
  Bytes pixels(64 * 64);
  train->read(0, pixels);
  CHECK(pixels == Bytes(64 * 64, 200));  // the cut holds the face and nothing around it
  put_image(folder / "img_align_celeba/a.jpg.png", plain(100, 100, 1));
  check_error([&] { train->read(0, pixels); }, {"a.jpg.png", "218 x 178"});
  check_error([&] { open_dataset(config_of("celeba", folder / "nothing", 64), Split::train); }, {"list_eval_partition.txt"});
}

TEST_CASE("COCO's images come in the order of their ids") {
  const ScratchFolder folder;
  put_text(folder / "annotations/captions_train2014.json",
           R"({"images": [{"id": 9, "file_name": "nine.png"}, {"id": 4, "file_name": "four.png"}], "annotations": []})");
  put_image(folder / "train2014/nine.png", plain(4, 6, 9));
  put_image(folder / "train2014/four.png", plain(6, 4, 4));
  CHECK(contents(*open_dataset(config_of("coco", folder.path()), Split::train)) == Contents{{4, 0}, {9, 0}});
  check_error([&] { open_dataset(config_of("coco", folder.path()), Split::test); }, {"captions_val2014.json"});
}

TEST_CASE("a zip of images as EDM writes it is read with its classes, from many threads' loader too", "[threads]") {
  const ScratchFolder folder;
  std::vector<std::vector<std::byte>> files;
  for (int i = 0; i < 3; ++i) files.push_back(encode_png(plain(4, 4, static_cast<std::uint8_t>(50 + i))));
  const auto write = [&](const std::string& name, const std::string& json) {
    std::vector<ZipMember> members = {{"dataset.json", std::as_bytes(std::span(json))}};
    for (int i = 2; i >= 0; --i) members.push_back({fmt::format("00000/img{:08}.png", i), files[static_cast<std::size_t>(i)]});
    write_zip(folder / name, members, false);
  };
  write("labelled.zip", R"({"labels": [["00000/img00000000.png", 2], ["00000/img00000001.png", 0], ["00000/img00000002.png", 2]]})");
  const auto labelled = open_dataset(config_of("zip", folder / "labelled.zip"), Split::train);
  CHECK(labelled->num_classes() == 3);
  CHECK(contents(*labelled) == Contents{{50, 2}, {51, 0}, {52, 2}});
  write("plain.zip", R"({"labels": null})");
  CHECK(contents(*open_dataset(config_of("zip", folder / "plain.zip"), Split::train)) == Contents{{50, 0}, {51, 0}, {52, 0}});
  write("short.zip", R"({"labels": [["00000/img00000000.png", 2]]})");
  check_error([&] { open_dataset(config_of("zip", folder / "short.zip"), Split::train); }, {"short.zip", "img00000001.png"});
  put_text(folder / "broken.zip", "PK no zip");
  check_error([&] { open_dataset(config_of("zip", folder / "broken.zip"), Split::train); }, {"broken.zip"});
}

TEST_CASE("ImageNet's layout: train/ and val/ with a folder a class") {
  const ScratchFolder folder;
  for (const char* split : {"train", "val"})
    for (const char* name : {"n01440764", "n01443537"})
      put_image(folder / split / name / (std::string(name) + "_1.png"), plain(4, 4, name[8] == '4' ? 1 : 2));
  const auto train = open_dataset(config_of("folder", folder.path()), Split::train);
  CHECK(train->class_names() == std::vector<std::string>{"n01440764", "n01443537"});
  CHECK(open_dataset(config_of("folder", folder.path()), Split::test)->size() == 2);
}
