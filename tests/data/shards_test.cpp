#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "data/dataset.h"
#include "data/encoded_image.h"
#include "data/loader.h"
#include "data/pack.h"
#include "data/shard_index.h"
#include "data_files.h"
#include "io/tar.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

DataConfig config_of(const std::string& dataset, const fs::path& path, std::int64_t side = 4) {
  DataConfig config;
  config.dataset = dataset;
  config.path = path.string();
  config.image_size = {side};
  config.channels = 3;
  return config;
}

/// A folder of PNGs of several sizes in three classes, some with a caption beside them.
void make_images(const fs::path& folder) {
  for (int i = 0; i < 23; ++i) {
    const fs::path path = folder / fmt::format("class{}/{:02}.png", i % 3, i);
    fs::create_directories(path.parent_path());
    write_png(path, pattern_image(i % 4 == 0 ? 1 : 3, 4 + i % 5, 5 + i % 3, static_cast<std::uint32_t>(i)));
    if (i % 5 == 0) write_file(fs::path(path).replace_extension(".txt"), std::string_view(fmt::format("picture {}", i)));
  }
}

fs::path pack(const ScratchFolder& folder, const std::string& name, std::uint64_t shard_bytes = 4000) {
  fs::create_directories(folder / name);
  PackRequest request;
  request.out = folder / name;
  request.shard_bytes = shard_bytes;
  request.threads = 3;
  pack_dataset(*open_dataset(config_of("folder", folder / "images"), Split::train), request);
  return folder / name;
}

struct Stream {
  std::vector<float> images;
  std::vector<std::int64_t> labels, indexes;
  bool operator==(const Stream&) const = default;
};

Stream stream(const Dataset& dataset, std::int64_t workers) {
  LoaderOptions options;
  options.seed = 3;
  options.batch_size = 7;
  options.workers = workers;
  options.flip = true;
  DataLoader loader(dataset, options);
  Stream all;
  for (int i = 0; i < 9; ++i) {
    const Batch batch = loader.next();
    all.images.insert(all.images.end(), batch.images.begin(), batch.images.end());
    all.labels.insert(all.labels.end(), batch.labels.begin(), batch.labels.end());
    all.indexes.insert(all.indexes.end(), batch.indexes.begin(), batch.indexes.end());
  }
  return all;
}

std::string edited(const fs::path& file, const std::function<void(nlohmann::ordered_json&)>& edit) {
  auto json = nlohmann::ordered_json::parse(read_file(file));
  edit(json);
  return json.dump();
}

}  // namespace

TEST_CASE("training batches from packed shards are those of the folder, bit for bit, with any number of threads", "[threads]") {
  const ScratchFolder folder;
  make_images(folder / "images");
  const auto images = open_dataset(config_of("folder", folder / "images"), Split::train);
  const Stream expected = stream(*images, 1);
  const fs::path shards = pack(folder, "shards");
  CHECK(fs::exists(shards / "00002.tar"));
  for (const bool with_index : {true, false}) {
    if (!with_index) fs::remove(shards / "index.json");  // then it is a plain webdataset
    for (const std::int64_t workers : {1, 4}) {
      const auto packed = open_dataset(config_of("shards", shards), Split::train);
      CHECK(packed->size() == images->size());
      CHECK(packed->num_classes() == 3);
      CHECK(packed->class_names() == (with_index ? images->class_names() : std::vector<std::string>{}));
      CHECK(stream(*packed, workers) == expected);
    }
    std::vector<std::string> captions;
    const ShardIndex index = find_shards(shards, true);
    for (const ShardSample& sample : index.samples)
      for (const std::string& caption : shard_captions(index, sample)) captions.push_back(caption);
    CHECK(captions == std::vector<std::string>{"picture 0", "picture 15", "picture 10", "picture 5", "picture 20"});
  }
}

TEST_CASE("packing gives equal bytes each time, and whole files in webdataset's form", "[threads]") {
  const ScratchFolder folder;
  make_images(folder / "images");
  const fs::path one = pack(folder, "one"), two = pack(folder, "two");
  for (const auto& entry : fs::directory_iterator(one)) CHECK(get(entry.path()) == get(two / entry.path().filename()));
  const std::vector<TarMember> members = list_tar(one / "00000.tar");
  REQUIRE(members.size() > 3);
  CHECK(members[0].name == "000000000.png");
  CHECK(members[1].name == "000000000.cls");
  CHECK(members[2].name == "000000000.txt");
  const Bytes tar = get(one / "00000.tar"), file = get(folder / "images/class0/00.png");
  CHECK(Bytes(tar.begin() + static_cast<std::ptrdiff_t>(members[0].offset), tar.begin() + static_cast<std::ptrdiff_t>(members[0].offset + members[0].size)) == file);
  const auto packed = open_dataset(config_of("shards", one), Split::train);
  const EncodedImage image = dynamic_cast<const EncodedImages&>(*packed).encoded(0);
  CHECK(image.ending == "png");
  CHECK(image.captions == std::vector<std::string>{"picture 0"});
  CHECK(verify_shards(read_shard_index(one)) > 0);
}

TEST_CASE("pixels can be packed in place of files, and captions in number") {
  const ScratchFolder folder;
  make_images(folder / "images");
  fs::create_directories(folder / "small");
  PackRequest request;
  request.out = folder / "small";
  request.pixels = true;
  request.captions = [](std::int64_t i) { return i == 1 ? std::vector<std::string>{"one", "two"} : std::vector<std::string>{}; };
  const auto images = open_dataset(config_of("folder", folder / "images"), Split::train);
  const PackResult result = pack_dataset(*images, request);
  CHECK(result.images == 23);
  CHECK(result.captions == 7);
  const auto packed = open_dataset(config_of("shards", folder / "small"), Split::test);
  CHECK(stream(*packed, 1) == stream(*images, 1));
  const ShardIndex index = read_shard_index(folder / "small");
  CHECK(shard_captions(index, index.samples[1]) == std::vector<std::string>{"one", "two"});
  request.stop = [] { return true; };
  check_error([&] { pack_dataset(*images, request); }, {"stopped"});
}

TEST_CASE("broken images are named when they are packed, or left out and counted") {
  const ScratchFolder folder;
  make_images(folder / "images");
  put(folder / "images/class1/04.png", {'n', 'o'});
  check_error([&] { pack(folder, "refused"); }, {"class1/04.png", "--skip-broken"});
  fs::create_directories(folder / "kept");
  PackRequest request;
  request.out = folder / "kept";
  request.skip_broken = true;
  const PackResult result = pack_dataset(*open_dataset(config_of("folder", folder / "images"), Split::train), request);
  CHECK(result.images == 22);
  CHECK(result.skipped == 1);
}

TEST_CASE("missing, cut and altered shards are named with what to do") {
  const ScratchFolder folder;
  make_images(folder / "images");
  const fs::path shards = pack(folder, "shards"), first = shards / "00000.tar", second = shards / "00001.tar";
  const Bytes whole = get(second);
  const auto open = [&] { return open_dataset(config_of("shards", shards), Split::train); };
  const auto read_all = [&] {
    const auto dataset = open();
    Bytes pixels(48);
    for (std::int64_t i = 0; i < dataset->size(); ++i) dataset->read(i, pixels);
  };
  read_all();

  fs::remove(second);
  check_error(open, {"00001.tar", "missing", "copy it again"});
  put(second, Bytes(whole.begin(), whole.end() - 600));
  check_error(open, {"00001.tar", "truncated", fmt::format("expected {} bytes, found {}", whole.size(), whole.size() - 600)});
  Bytes longer = whole;
  longer.push_back(0);
  put(second, longer);
  check_error(open, {"00001.tar", "too long"});

  Bytes altered = whole;
  altered[kTarBlock + 60] ^= 1;  // in the pixels of the first image
  put(second, altered);
  check_error(read_all, {"00001.tar[0]", "damaged at byte 512", "checksum", "copy the shard again"});
  check_error([&] { verify_shards(read_shard_index(shards)); }, {"00001.tar", "SHA-256"});
  altered = whole;
  altered[5] = 'x';  // in the header before it
  put(second, altered);
  check_error(read_all, {"00001.tar[0]", "no tar header"});
  put(second, whole);
  read_all();

  check_error([&] { open_dataset(config_of("shards", folder / "nowhere"), Split::train); }, {"nowhere", "neither"});
  fs::create_directories(folder / "empty");
  check_error([&] { open_dataset(config_of("shards", folder / "empty"), Split::train); }, {"empty", "uvit pack"});
  check_error([&] { open_dataset(config_of("shards", ""), Split::train); }, {"data.path"});
}

TEST_CASE("a damaged index is named") {
  const ScratchFolder folder;
  make_images(folder / "images");
  const fs::path shards = pack(folder, "shards"), json = shards / "index.json", records = shards / "samples.bin";
  const Bytes good_json = get(json), good_records = get(records);
  const auto open = [&] { return open_dataset(config_of("shards", shards), Split::train); };
  const auto check_json = [&](const std::string& text, const std::vector<std::string>& words) {
    put(json, Bytes(text.begin(), text.end()));
    check_error(open, words);
    put(json, good_json);
  };
  check_json("{", {"index.json", "damaged", "pack again"});
  check_json("[1]", {"index.json", "damaged"});
  check_json(edited(json, [](auto& j) { j["format"] = 2; }), {"index.json", "format is 2"});
  check_json(edited(json, [](auto& j) { j["num_classes"] = 1e300; }), {"num_classes", "no whole number"});
  check_json(edited(json, [](auto& j) { j["num_classes"] = 4; }), {"4 classes", "3 names"});
  check_json(edited(json, [](auto& j) { j["shards"][0]["name"] = "../x.tar"; }), {"no name of a shard"});
  check_json(edited(json, [](auto& j) { j["shards"][1]["count"] = std::uint64_t{1} << 60; }), {"impossible"});
  check_json(edited(json, [](auto& j) { j["shards"][1]["count"] = 3; }), {"samples.bin", "expected", "found"});
  check_json(edited(json, [](auto& j) { j.erase("source"); }), {"index.json", "source"});
  check_json(edited(json, [](auto& j) { j["shards"][0]["size"] = 600; }), {"sample", "outside its shard"});

  Bytes altered = good_records;
  altered[9] ^= 4;
  put(records, altered);
  check_error(open, {"samples.bin", "checksum"});
  altered.pop_back();
  put(records, altered);
  check_error(open, {"samples.bin", "found"});
  fs::remove(records);
  check_error(open, {"samples.bin"});
}

TEST_CASE("any webdataset of images is read, and what is no sample is named") {
  const ScratchFolder folder;
  const auto write = [&](const std::string& name, const std::vector<std::pair<std::string, std::string>>& members) {
    TarWriter tar(folder / name, folder / name);
    for (const auto& [member, text] : members) tar.add(member, std::as_bytes(std::span(text)));
    tar.finish();
  };
  const auto encoded = encode_png(pattern_image(3, 4, 4, 9));
  const std::string png(reinterpret_cast<const char*>(encoded.data()), encoded.size());
  fs::create_directories(folder / "train");
  fs::create_directories(folder / "val");
  write("train/b.tar", {{"x/two.png", png}, {"x/two.cls", " 7\n"}});
  write("train/a.tar", {{"__index__", "z"}, {"one.cls", "2"}, {"one.seg.png.txt", "?"}, {"one.PNG", png}, {"one.json", R"({"caption": "a thing"})"}});
  write("val/a.tar", {{"only.cls", "1"}, {"only.png", png}});
  auto config = config_of("shards", folder.path());
  const auto train = open_dataset(config, Split::train), val = open_dataset(config, Split::test);
  REQUIRE(train->size() == 2);
  CHECK(train->num_classes() == 8);
  CHECK(train->label(0) == 2);
  CHECK(train->label(1) == 7);
  CHECK(val->size() == 1);
  config.num_classes = 9;
  CHECK(open_dataset(config, Split::train)->num_classes() == 9);
  const ShardIndex index = find_shards(folder.path(), true);
  CHECK(shard_captions(index, index.samples[0]) == std::vector<std::string>{"a thing"});
  Bytes pixels(48);
  train->read(0, pixels);
  CHECK(pixels == pattern(48, 9));

  config = config_of("shards", folder / "bad.tar");
  write("bad.tar", {{"one.png", png}, {"one.cls", "2"}, {"two.png", png}});
  check_error([&] { open_dataset(config, Split::train); }, {"sample two", "bad.tar", "no class"});
  write("bad.tar", {{"one.png", png}, {"two.png", png}, {"two.cls", "3"}});
  check_error([&] { open_dataset(config, Split::train); }, {"sample two", "have none"});
  write("bad.tar", {{"one.cls", "2"}, {"two.png", png}});
  check_error([&] { open_dataset(config, Split::train); }, {"sample one", "no image"});
  write("bad.tar", {{"one.png", png}, {"one.jpg", png}});
  check_error([&] { open_dataset(config, Split::train); }, {"sample one", "two images"});
  write("bad.tar", {{"one.png", png}, {"one.cls", "cat"}});
  check_error([&] { open_dataset(config, Split::train); }, {"sample one", "'cat'"});
  write("bad.tar", {{"notes", "none"}});
  check_error([&] { open_dataset(config, Split::train); }, {"no image"});
  put(folder / "bad.tar", {'x'});
  check_error([&] { open_dataset(config, Split::train); }, {"bad.tar", "truncated"});
}
