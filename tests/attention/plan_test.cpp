#include <torch/torch.h>

#include "attention/operator.h"
#include "attention/plan.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using namespace uvit;

namespace {

ModelConfig config_of(std::int64_t depth, std::vector<std::string> attention, std::vector<std::string> softmax_blocks = {"first", "last"}) {
  ModelConfig config;
  config.depth = depth;
  config.attention = std::move(attention);
  config.softmax_blocks = std::move(softmax_blocks);
  return config;
}

using Kinds = std::vector<std::string>;

}  // namespace

TEST_CASE("one kind with first and last is the official placement of U-ViC") {
  CHECK(make_plan(config_of(4, {"cog"})).kinds == Kinds{"softmax", "cog", "cog", "cog", "softmax"});
  CHECK(make_plan(config_of(2, {"cog"})).kinds == Kinds{"softmax", "cog", "softmax"});
  CHECK(make_plan(config_of(4, {"cog"}, {})).kinds == Kinds(5, "cog"));
  CHECK(make_plan(config_of(4, {"cog"}, {"mid", "in.1", "out.0"})).kinds == Kinds{"cog", "softmax", "softmax", "softmax", "cog"});
}

TEST_CASE("an odd depth has the blocks of the depth below it, and the mid block alone has no first and last") {
  CHECK(make_plan(config_of(5, {"cog"})).kinds == make_plan(config_of(4, {"cog"})).kinds);
  CHECK(make_plan(config_of(1, {"cog"})).kinds == Kinds{"cog"});
}

TEST_CASE("a list names every block in running order") {
  const Kinds list = {"cog", "softmax", "cog", "cog", "softmax"};
  const AttentionPlan plan = make_plan(config_of(4, list));
  CHECK(plan.kinds == list);
  CHECK(plan.in(1) == "softmax");
  CHECK(plan.mid() == "cog");
  CHECK(plan.out(1) == "softmax");
  CHECK(block_name(1, 5) == "in.1");
  CHECK(block_name(2, 5) == "mid");
  CHECK(block_name(4, 5) == "out.1");
}

TEST_CASE("a plan that cannot be is refused with what there is") {
  CHECK_THROWS_WITH(make_plan(config_of(4, {"cogg"})), Catch::Contains("'cogg'") && Catch::Contains("did you mean 'cog'"));
  CHECK_THROWS_WITH(make_plan(config_of(4, {"cog"}, {"in.7"})), Catch::Contains("'in.7'") && Catch::Contains("did you mean 'in."));
  CHECK_THROWS_WITH(make_plan(config_of(4, {"cog", "cog"})), Catch::Contains("2 entries") && Catch::Contains("5"));
  CHECK_THROWS_AS(make_plan(config_of(0, {"cog"})), Error);
  CHECK_THROWS_AS(make_plan(config_of(4, {})), Error);
}

TEST_CASE("the description folds equal blocks of a side and names what runs them") {
  ModelConfig config = config_of(8, {"cog"});
  config.embed_dim = 64;
  config.num_heads = 4;
  config.attention_backend = "eager";
  const std::string text = describe_plan(make_plan(config), config, "fp32", "cpu");
  CHECK(std::count(text.begin(), text.end(), '\n') == 5);
  CHECK_THAT(text, Catch::Contains("in.0 ") && Catch::Contains("in.1 - in.3") && Catch::Contains("mid ") && Catch::Contains("out.0 - out.2") &&
                       Catch::Contains("out.3 ") && Catch::Contains("eager"));
}

TEST_CASE("the description says why a block does not run fused") {
  ModelConfig config = config_of(2, {"softmax", "differential", "cog"});
  config.attention_backend = "fused";
  config.embed_dim = 160;
  config.num_heads = 2;
  const auto describe = [&](const char* precision, const char* device) { return describe_plan(make_plan(config), config, precision, device); };
  // Heads of 80: differential pairs their values to 160.
  CHECK_THAT(describe("fp32", "cpu"),
             Catch::Matches("in\\.0 +softmax +fused\nmid +differential +plain operations: value_dim 160.*\nout\\.0 +cog +fused\n"));
  CHECK_THAT(describe("bf16", "cpu"), Catch::Contains("fused"));
  CHECK_THAT(describe("fp16", "cpu"), !Catch::Contains("fused") && Catch::Contains("Half"));
  const bool gpu_kernels = plain_path_reason(c10::kCUDA, at::kBFloat16, 80, 80).empty();
  CHECK_THAT(describe("bf16", "cuda"), Catch::Contains(gpu_kernels ? "cog           fused, cuda" : "cog           plain operations: "));
  config.embed_dim = 20;
  CHECK_THAT(describe("fp32", "cpu"), !Catch::Contains("fused") && Catch::Contains("head_dim 10"));
}
