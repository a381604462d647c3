#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "model/uvit.h"
#include "support/fixtures.h"

namespace uvit::test {

/// A network case of uvit.json or uvic.json: the official constructor's arguments, read into our options.
struct UViTCase {
  std::string name;
  UViTOptions options;
  std::int64_t num_parameters = 0;
  std::vector<std::string> parameter_order;
};

/// The official constructor's arguments, as the fixtures write them.
inline UViTOptions read_uvit_options(const nlohmann::json& c) {
  UViTOptions o;
  o.height = o.width = c.at("img_size");
  o.channels = c.at("in_chans");
  o.patch_size = c.at("patch_size");
  o.embed_dim = c.at("embed_dim");
  o.depth = c.at("depth");
  o.num_heads = c.at("num_heads");
  o.mlp_ratio = c.at("mlp_ratio");
  o.qkv_bias = c.at("qkv_bias");
  o.mlp_time_embed = c.at("mlp_time_embed");
  o.conv = c.value("conv", true);
  o.skip = c.value("skip", true);
  o.label_rows = std::max<std::int64_t>(c.value("num_classes", -1), 0);
  o.context_dim = c.value("clip_dim", 0);
  o.context_tokens = c.value("num_clip_token", 0);
  ModelConfig plan;
  plan.depth = o.depth;
  plan.attention = {c.value("np", false) ? "cog" : "softmax"};
  o.plan = make_plan(plan);
  return o;
}

inline UViTCase read_uvit_case(const nlohmann::json& entry) {
  UViTCase result;
  result.name = entry.at("name");
  result.num_parameters = entry.at("n_params");
  result.parameter_order = entry.at("param_order").get<std::vector<std::string>>();
  result.options = read_uvit_options(entry.at("config"));
  return result;
}

inline std::vector<UViTCase> uvit_cases() {
  std::vector<UViTCase> cases;
  for (const char* file : {"uvit.json", "uvic.json"}) {
    const nlohmann::json json = fixture_json(file);
    for (const nlohmann::json& entry : json.at("cases")) cases.push_back(read_uvit_case(entry));
  }
  return cases;
}

}  // namespace uvit::test
