#include "config/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "config/keys.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;

namespace {

Config parse(const std::string& text, const std::vector<std::string>& overrides = {}) { return parse_config(text, "x.toml", overrides); }
std::string error_in(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return test::error_of([&] { parse(text, overrides); });
}
std::string error_of_override(const std::string& text) { return error_in("", {text}); }

}  // namespace

TEST_CASE("an empty file gives the defaults, and they are valid") { CHECK(parse("") == Config{}); }

TEST_CASE("every key of the table is read, printed and described") {
  std::set<std::string> names;
  const std::string described = describe_keys();
  for (const ConfigKey& key : config_keys()) {
    CAPTURE(key.full_name());
    CHECK(names.insert(key.full_name()).second);
    CHECK_FALSE(key.doc.empty());
    CHECK_THAT(described, Contains(key.full_name() + "  (" + format_field(key, Config{}) + ")  "));
    const std::string own_section = fmt::format("[{}]\n{} = {}\n", key.section, key.name, format_field(key, Config{}));
    CHECK(parse(own_section) == Config{});
    CHECK(parse("", {key.full_name() + "=" + format_field(key, Config{})}) == Config{});
    CHECK_THAT(error_in(fmt::format("[{}]\n\n{} = 1979-05-27\n", key.section, key.name)), Contains("x.toml:3: " + key.full_name()));
  }
  const auto lines = static_cast<std::size_t>(std::count(described.begin(), described.end(), '\n'));
  CHECK(lines == names.size());
}

TEST_CASE("each key sets a field of its own, and to_toml reads back to the same Config") {
  Config config;
  std::int64_t i = 1;
  // Two rows bound to one field would overwrite one another here.
  for (const ConfigKey& key : config_keys()) {
    ++i;
    std::visit(
        [&](auto* field) {
          using T = std::decay_t<decltype(*field)>;
          if constexpr (std::is_same_v<T, bool>)
            *field = !*field;
          else if constexpr (std::is_same_v<T, std::string>)
            *field = key.range.words.empty() ? fmt::format("a \"b\"\\\n\t\x01\u00fc{}", i) : key.range.words.back();
          else if constexpr (std::is_same_v<T, std::vector<std::string>>)
            *field = {fmt::format("k{}", i), "\"", ""};
          else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>)
            *field = {i, i + 1};
          else if constexpr (std::is_same_v<T, std::vector<double>>)
            *field = {0.1, 1.0 / 3, 1e-9 * static_cast<double>(i)};
          else if constexpr (std::is_same_v<T, std::array<double, 2>>)
            *field = {1.0 / 3, 1e-9 * static_cast<double>(i)};
          else if constexpr (std::is_same_v<T, std::array<std::int64_t, 2>>)
            *field = {i, i + 1};
          else if constexpr (std::is_same_v<T, double>)
            *field = 1 / (1.0 + static_cast<double>(i));
          else
            *field = static_cast<T>(std::min(static_cast<double>(i), key.range.high));
        },
        key.field(config));
  }
  config.data.image_size = {config.model.patch_size * 2, config.model.patch_size * 3};
  config.model.embed_dim = config.model.num_heads * 3;
  config.model.attention = {"cog"};
  config.model.softmax_blocks = {};
  config.train.batch_size = config.train.micro_batch_size * 2;
  config.sample.guidance_interval.resize(2);
  config.train.ema_power = {0.05, 0.1};
  const Config back = parse(to_toml(config));
  CHECK(back == config);
  for (const ConfigKey& key : config_keys()) {
    CAPTURE(key.full_name());
    CHECK(format_field(key, back) == format_field(key, config));
  }
  CHECK(to_toml(back) == to_toml(config));
}

TEST_CASE("numbers, lists and single values are taken as documented") {
  const Config config = parse(R"(
[model]
attention = "cog"
softmax_blocks = []
[data]
image_size = [32, 64]
[optimizer]
lr = 1
betas = [0.9, 0.95]
[train]
ema_decay = [0.99, 0.9999]
seed = 9007199254740993
[sample]
grid = [2, 3]
)");
  CHECK(config.model.attention == std::vector<std::string>{"cog"});
  CHECK(config.model.softmax_blocks.empty());
  CHECK(config.data.height() == 32);
  CHECK(config.data.width() == 64);
  CHECK(config.optimizer.lr == 1.0);
  CHECK(config.optimizer.betas == std::array{0.9, 0.95});
  CHECK(config.train.ema_decay == std::vector{0.99, 0.9999});
  CHECK(config.train.seed == 9007199254740993);
  CHECK(config.sample.grid == std::array<std::int64_t, 2>{2, 3});
  CHECK(parse("data.image_size = 64\ntrain.ema_decay = 0.5").data.image_size == std::vector<std::int64_t>{64});
  CHECK(parse("[model]\ndepth = 2\nattention = [\"cog\", \"softmax\", \"sda\"]").model.attention.size() == 3);
}

TEST_CASE("an unknown key or section is named with its line and the nearest name") {
  CHECK(error_in("[model]\ndepth = 4\nembed_dmi = 64\n")
            .starts_with("x.toml:3: unknown key of [model] 'embed_dmi': did you mean 'embed_dim'? There are: patch_size, "));
  CHECK_THAT(error_in("\n[modle]\ndepth = 4\n"),
             Contains("x.toml:2: unknown section 'modle': did you mean 'model'? There are: model, diffusion, data, "));
  CHECK_THAT(error_in("[model]\nlr = 4\n"), Contains("x.toml:2: unknown key 'model.lr': did you mean optimizer.lr?"));
  CHECK_THAT(error_in("lr = 4\n"), Contains("x.toml:1: 'lr' belongs in a section: did you mean optimizer.lr?"));
  CHECK_THAT(error_in("model = 4\n"), Contains("x.toml:1: 'model' is a section"));
  CHECK_THAT(error_in("[model.depth]\nx = 4\n"), Contains("x.toml:1: model.depth wants an integer, not a table"));
  CHECK_THAT(error_in("[[model]]\ndepth = 4\n"), Contains("'model' is a section"));
}

TEST_CASE("a wrong type is named with what was wanted and what was given") {
  CHECK_THAT(error_in("[train]\nsteps = 1e5\n"), Contains("x.toml:2: train.steps wants an integer, not a number with a point or exponent"));
  CHECK_THAT(error_in("[train]\nsteps = \"10\"\n"), Contains("train.steps wants an integer, not a string"));
  CHECK_THAT(error_in("[model]\nconv = 1\n"), Contains("model.conv wants true or false, not an integer"));
  CHECK_THAT(error_in("[model]\nattention = [\"cog\", 1]\n"), Contains("model.attention wants a string, not an integer"));
  CHECK_THAT(error_in("[optimizer]\nlr = true\n"), Contains("optimizer.lr wants a number, not true or false"));
  CHECK_THAT(error_in("[optimizer]\nbetas = [0.9]\n"), Contains("optimizer.betas wants a list of two numbers"));
  CHECK_THAT(error_in("[sample]\ngrid = 5\n"), Contains("sample.grid wants a list of two numbers"));
  CHECK_THAT(error_in("[train]\nseed = -1\n"), Contains("train.seed must be >= 0"));
  CHECK_THAT(error_in("[train]\nsteps = 99999999999999999999\n"), Contains("x.toml:2: not valid TOML"));
}

TEST_CASE("text that is no TOML is refused with its line") {
  CHECK_THAT(error_in("[model]\ndepth = \n"), Contains("x.toml:2: not valid TOML: "));
  CHECK_THAT(error_in("[model]\ndepth = 1\ndepth = 2\n"), Contains("x.toml:3: not valid TOML: "));
  CHECK_THAT(error_in(std::string("\x89PNG\r\n\x1a\n\0\0", 10)), Contains("not valid TOML"));
}

TEST_CASE("a message is one line, though the text that it quotes is not") {
  CHECK_THAT(error_in("[train]\n\"two\\nlines\" = 1"), Contains("two\\x0alines"));
  CHECK_THAT(error_of_override("two\nlines.x=1"), Contains("two\\x0alines"));
}

TEST_CASE("a value out of range is refused where it stands") {
  CHECK_THAT(error_in("[model]\nembed_dim = 0\n"), Contains("x.toml:2: model.embed_dim = 0: must be >= 1 and <= "));
  CHECK_THAT(error_in("[model]\npatch_size = -2\n"), Contains("x.toml:2: model.patch_size = -2: must be >= 1"));
  CHECK_THAT(error_in("[model]\nmlp_ratio = 0\n"), Contains("model.mlp_ratio = 0.0: must be > 0"));
  CHECK_THAT(error_in("[data]\nimage_size = [28, 0]\n"), Contains("data.image_size = [28, 0]: must be >= 1"));
  CHECK_THAT(error_in("[data]\nnum_classes = -1\n"), Contains("data.num_classes"));
  CHECK_THAT(error_in("[data]\non_error = \"ignore\"\n"), Contains("data.on_error = \"ignore\": must be one of fail, skip"));
  CHECK_THAT(error_in("[diffusion]\nlabel_dropout = 1.0\n"), Contains("diffusion.label_dropout = 1.0: must be >= 0 and < 1"));
  CHECK_THAT(error_in("[optimizer]\nlr = nan\n"), Contains("optimizer.lr = nan: must be >= 0"));
  CHECK_THAT(error_in("[optimizer]\nlr = inf\n"), Contains("optimizer.lr = inf"));
  CHECK_THAT(error_in("[optimizer]\nbetas = [0.9, 1.0]\n"), Contains("optimizer.betas = [0.9, 1.0]: must be >= 0 and < 1"));
  CHECK_THAT(error_in("[train]\nprecision = \"fp8\"\n"), Contains("train.precision = \"fp8\": must be one of fp32, bf16, fp16"));
  CHECK_THAT(error_in("[train]\nbatch_size = 0\n"), Contains("train.batch_size"));
  CHECK_THAT(error_in("[sample]\nguidance_scale = -0.5\n"), Contains("sample.guidance_scale = -0.5: must be >= 0"));
  CHECK_THAT(error_in("[sample]\ngrid = [0, 5]\n"), Contains("sample.grid = [0, 5]: must be >= 1"));
  CHECK_THAT(error_in("[sample]\nprecision = \"half\"\n"), Contains("sample.precision"));
}

TEST_CASE("fields that contradict one another are refused") {
  CHECK_THAT(error_in("[model]\npatch_size = 3\n"), Contains("x.toml: model.patch_size = 3 does not divide the image of 28 x 28"));
  CHECK_THAT(error_in("[model]\npatch_size = 4\n[data]\nimage_size = [28, 30]\n"), Contains("does not divide the image of 28 x 30"));
  CHECK_THAT(error_in("[data]\nimage_size = [28, 28, 28]\n"), Contains("data.image_size: give one side, or [height, width]"));
  CHECK_THAT(error_in("[data]\nimage_size = []\n"), Contains("data.image_size"));
  CHECK_THAT(error_in("[model]\nnum_heads = 7\n"), Contains("model.num_heads = 7 does not divide model.embed_dim = 512"));
  CHECK_THAT(error_in("[model]\nembed_dim = 8\nmlp_ratio = 0.1\n"), Contains("no hidden unit"));
  CHECK_THAT(error_in("[model]\ncontext_dim = 8\n"), Contains("give both or neither"));
  CHECK_THAT(error_in("[model]\ndepth = 5\nattention = [\"cog\", \"cog\", \"cog\", \"cog\"]\n"),
             Contains("names 4 kinds") && Contains("each of the 5 blocks"));
  CHECK_THAT(error_in("[model]\nattention = []\n"), Contains("names 0 kinds"));
  CHECK_THAT(error_in("[model]\ndepth = 4\nsoftmax_blocks = [\"in.2\"]\n"),
             Contains("no block 'in.2' at depth 4; there are first, last, mid, in.0 to in.1, out.0 to out.1"));
  CHECK_THAT(error_in("[model]\ndepth = 1\nsoftmax_blocks = [\"in.0\"]\n"), Contains("there are first, last, mid"));
  for (const char* name : {"in.", "in.-1", "in.0x", "middle", "out", "in.99999999999999999999"})
    CHECK_THAT(error_in(fmt::format("[model]\nsoftmax_blocks = \"{}\"\n", name)), Contains(fmt::format("no block '{}'", name)));
  CHECK(parse("[model]\ndepth = 5\nsoftmax_blocks = [\"in.0\", \"in.1\", \"mid\", \"out.1\", \"last\"]").model.softmax_blocks.size() == 5);
  CHECK_THAT(error_in("[train]\nbatch_size = 128\nmicro_batch_size = 48\n"), Contains("train.micro_batch_size = 48 does not divide"));
  CHECK_THAT(error_in("[train]\nema_decay = []\n"), Contains("train.ema_decay"));
  CHECK_THAT(error_in("[train]\nema_decay = [0.9, 0.9]\n"), Contains("given twice"));
  CHECK_THAT(error_in("[train]\nema_power = [0.1, 0.1]\n"), Contains("given twice"));
  CHECK_THAT(error_in("[train]\nema_power = [0.05, 0.3]\n"), Contains("train.ema_power"));
  CHECK_THAT(error_in("[diffusion]\nlabel_dropout = 0.1\n"), Contains("set data.num_classes"));
  CHECK(parse("[diffusion]\nlabel_dropout = 0.1\n[data]\nnum_classes = 10\n").data.num_classes == 10);

  Config config;
  config.sample.guidance_scale = -1;
  CHECK_THAT(test::error_of([&] { validate(config); }), Contains("sample.guidance_scale"));
}

TEST_CASE("overrides are TOML values or bare words, and come after the file") {
  const Config config = parse("[train]\nsteps = 5\n", {"train.steps=7", "model.attention=cog", "model.softmax_blocks=[first, mid]",
                                                       "data.path=/data/some folder", "data.dataset=\"cifar10\"", "data.image_size=[28,56]",
                                                       "optimizer.lr=1e-3", "model.conv=false", "train.ema_decay=[0.5, 0.9]", "sample.grid=[1,2]"});
  CHECK(config.train.steps == 7);
  CHECK(config.model.attention == std::vector<std::string>{"cog"});
  CHECK(config.model.softmax_blocks == std::vector<std::string>{"first", "mid"});
  CHECK(config.data.path == "/data/some folder");
  CHECK(config.data.dataset == "cifar10");
  CHECK(config.data.width() == 56);
  CHECK(config.optimizer.lr == 1e-3);
  CHECK_FALSE(config.model.conv);
  CHECK(config.train.ema_decay == std::vector{0.5, 0.9});
  CHECK(parse("", {"data.path=2024"}).data.path == "2024");
  CHECK(parse("", {"data.path="}).data.path.empty());
  CHECK(parse("", {"data.path=a=b"}).data.path == "a=b");
  CHECK(parse("", {"data.path=1\nw = 2"}).data.path == "1\nw = 2");
  CHECK(parse("", {"model.softmax_blocks=[]"}).model.softmax_blocks.empty());

  CHECK_THAT(error_of_override("model.depht=4"), Contains("--set model.depht=4: unknown key of [model] 'depht': did you mean 'depth'?"));
  CHECK_THAT(error_of_override("modl.depth=4"), Contains("unknown section 'modl': did you mean 'model'?"));
  CHECK_THAT(error_of_override("depth=4"), Contains("write section.key=value"));
  CHECK_THAT(error_of_override("model.depth"), Contains("write section.key=value"));
  CHECK_THAT(error_of_override("data.path.x"), Contains("write section.key=value"));
  CHECK_THAT(error_of_override("model.depth=four"), Contains("--set model.depth=four: model.depth wants an integer, not a string"));
  CHECK_THAT(error_of_override("model.depth=0"), Contains("model.depth = 0: must be >= 1"));
  CHECK_THAT(error_of_override("model.patch_size=3"), Contains("x.toml: model.patch_size = 3 does not divide"));
}

TEST_CASE("load_config names the file") {
  const test::ScratchFolder folder;
  write_file(folder / "a.toml", "[train]\nsteps = 3\n");
  CHECK(load_config(folder / "a.toml").train.steps == 3);
  CHECK(load_config(folder / "a.toml", {"train.steps=4"}).train.steps == 4);
  write_file(folder / "b.toml", "[train]\nstep = 3\n");
  CHECK_THAT(test::error_of([&] { load_config(folder / "b.toml"); }), Contains((folder / "b.toml").string() + ":2: ") && Contains("'steps'"));
  CHECK_THAT(test::error_of([&] { load_config(folder / "c.toml"); }), Contains("c.toml: No such file"));
}

TEST_CASE("every config of the repository is valid") {
  for (const auto& item : std::filesystem::recursive_directory_iterator(std::filesystem::path(UVIT_SOURCE_DIR) / "configs")) {
    if (item.path().extension() != ".toml") continue;
    CAPTURE(item.path().string());
    CHECK_NOTHROW(load_config(item.path()));
  }
}
