#include <torch/torch.h>

#include "metrics/script_network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <toml++/toml.h>

#include "core/error.h"
#include "core/hash.h"
#include "core/name_table.h"
#include "io/host_tensor.h"
#include "metrics/resize.h"
#include "metrics/script_module.h"

namespace uvit {
namespace {

struct ScriptSettings {
  std::int64_t size = 0;
  std::string resize, output;
  std::vector<double> mean, std;
};

std::vector<double> numbers(const toml::table& table, const char* key) {
  std::vector<double> values;
  const toml::array* array = table[key].as_array();
  if (!array) throw Error(fmt::format("it needs {} = [...], a number a channel", key));
  for (const toml::node& each : *array) {
    const auto value = each.value<double>();
    if (!value) throw Error(fmt::format("{} holds what is no number", key));
    values.push_back(*value);
  }
  if (values.size() != 1 && values.size() != 3) throw Error(fmt::format("{} holds {} numbers; images have 1 or 3 channels", key, values.size()));
  return values;
}

ScriptSettings read_settings(const std::string& path, const std::string& resize) {
  try {
    const toml::table table = toml::parse_file(path);
    const std::vector<std::string> known = {"size", "resize", "mean", "std", "output"};
    for (const auto& [key, unused] : table) {
      if (std::find(known.begin(), known.end(), key.str()) == known.end()) throw_unknown_name("key", key.str(), known);
    }
    ScriptSettings settings;
    const auto size = table["size"].value<std::int64_t>();
    if (!size || *size < 0 || *size > 4096) throw Error("it needs size, pixels from 0 (as they are) to 4096");
    settings.size = *size;
    settings.resize = resize.empty() ? table["resize"].value<std::string>().value_or("clean-fid") : resize;
    find_resize(settings.resize);
    settings.mean = numbers(table, "mean");
    settings.std = numbers(table, "std");
    settings.output = table["output"].value<std::string>().value_or("");
    if (settings.mean.size() != settings.std.size()) throw Error("mean and std differ in length");
    for (const double each : settings.std) {
      if (!(each > 0)) throw Error("std must be positive");
    }
    return settings;
  } catch (const toml::parse_error& e) {
    throw Error(fmt::format("cannot read {}: {}", path, e.description()));
  } catch (const Error& e) {
    throw Error(fmt::format("cannot read {}: {}", path, e.what()));
  }
}

class ScriptNetwork : public FeatureNetwork {
 public:
  ScriptNetwork(const std::string& file, const NetworkOptions& options)
      : file_(file), hash_(sha256_of_file(file)), device_(options.device),
        settings_(read_settings(std::filesystem::path(file).replace_extension(".toml").string(), options.resize)),
        module_(load_script_module(file, options.device)) {
    const std::int64_t side = settings_.size > 0 ? settings_.size : 64;
    dims_ = features_of(prepare(at::zeros({1, channels(), side, side}, at::kByte))).size(1);
  }
  std::string name() const override { return "script:" + std::filesystem::path(file_).filename().string(); }
  std::int64_t channels() const override { return static_cast<std::int64_t>(settings_.mean.size()); }
  std::vector<FeatureOutput> outputs() const override { return {{"features", OutputKind::features, dims_}}; }
  at::Tensor prepare(const at::Tensor& images) const override {
    const torch::NoGradGuard no_grad;
    at::Tensor x = float_image(images, channels(), name());
    if (settings_.size > 0) x = find_resize(settings_.resize).resize(x, settings_.size, settings_.size);
    const auto per_channel = [](const std::vector<double>& values) { return torch::tensor(values, at::kFloat).view({1, -1, 1, 1}); };
    return (x / 255 - per_channel(settings_.mean)) / per_channel(settings_.std);
  }
  NamedFeatures run(const at::Tensor& prepared, const std::vector<std::string>& wanted) override {
    NamedFeatures result;
    for (const std::string& each : wanted) result[output(each).name] = features_of(prepared);
    return result;
  }
  std::string weights_hash() const override { return hash_; }
  std::string preprocess() const override {
    const std::string size = settings_.size > 0 ? fmt::format("{} to {} x {}", settings_.resize, settings_.size, settings_.size) : "own size";
    return fmt::format("{}, (x / 255 - [{}]) / [{}]", size, fmt::join(settings_.mean, ", "), fmt::join(settings_.std, ", "));
  }

 private:
  at::Tensor features_of(const at::Tensor& prepared) {
    at::Tensor features = pick(run_script_module(module_, prepared.to(device_), file_)).to(at::kCPU, at::kFloat);
    if (features.dim() > 2) features = features.flatten(2).mean(2);
    if (features.dim() != 2 || features.size(0) != prepared.size(0) || features.size(1) < 1)
      throw Error(fmt::format("{} gives {} for {} images, not [N, D]", file_, format_shape(features.sizes().vec()), prepared.size(0)));
    return features;
  }
  at::Tensor pick(const c10::IValue& value) const {
    if (value.isTensor() && settings_.output.empty()) return value.toTensor();
    if (value.isGenericDict()) {
      for (const auto& entry : value.toGenericDict()) {
        if (entry.key().isString() && entry.key().toStringRef() == settings_.output && entry.value().isTensor()) return entry.value().toTensor();
      }
    }
    if (value.isTuple()) {
      const auto& parts = value.toTupleRef().elements();
      for (std::size_t i = 0; i < parts.size(); ++i) {
        if (std::to_string(i) == settings_.output && parts[i].isTensor()) return parts[i].toTensor();
      }
    }
    throw Error(fmt::format("{} returns {}, which holds no tensor '{}': set output in its .toml", file_, value.tagKind(), settings_.output));
  }

  std::string file_, hash_;
  at::Device device_;
  ScriptSettings settings_;
  torch::jit::Module module_;
  std::int64_t dims_ = 0;
};

}  // namespace

std::unique_ptr<FeatureNetwork> load_script_network(const std::string& file, const NetworkOptions& options) {
  if (file.empty()) throw Error("network script needs a file: script:FILE.pt, with FILE.toml beside it");
  if (!options.weights.empty() || options.precision != "fp32") throw Error("network script:FILE has weights and precision of its own: leave those options away");
  return std::make_unique<ScriptNetwork>(file, options);
}

}  // namespace uvit
