#include "train/metrics_log.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "config/keys.h"
#include "core/atomic_file.h"
#include "io/json_field.h"
#include "io/json_lines.h"

namespace uvit {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// Rewrites the log without lines beyond `step`. @return the seconds of its last line
double drop_lines_beyond(const fs::path& path, std::int64_t step) {
  double seconds = 0;
  keep_json_lines(path, [&](const Json& line) {
    const bool keeps = value_or(line, "step", step + 1) <= step;
    if (keeps) seconds = value_or(line, "seconds", seconds);
    return keeps;
  });
  return seconds;
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

}  // namespace

MetricsLog::MetricsLog(const fs::path& run, std::int64_t step)
    : path_(run / "metrics.jsonl"),
      seconds_before_(drop_lines_beyond(path_, step)),
      events_(run, fs::exists(path_) ? std::optional(step + 1) : std::nullopt) {}

void MetricsLog::rewind(std::int64_t step) {
  drop_lines_beyond(path_, step);
  events_.purge_from(step + 1);
}

void MetricsLog::add_settings(const std::string& run, const Config& config) {
  std::vector<HParam> settings;
  for (const ConfigKey& key : config_keys()) {
    const std::string text = format_field(key, config);
    HParam setting{key.full_name(), text};
    double number = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (result.ec == std::errc() && result.ptr == text.data() + text.size())
      setting.value = number;
    else if (text == "true" || text == "false")
      setting.value = text == "true";
    else if (text.size() >= 2 && text.front() == '"')
      setting.value = text.substr(1, text.size() - 2);
    settings.push_back(std::move(setting));
  }
  events_.add_hparams(run, settings, {"loss/train", "loss/eval"});
}

void MetricsLog::sync() const {
  if (fs::exists(path_)) sync_path(path_);
}

void MetricsLog::write(const MetricsLine& line) {
  Json json = {{"step", line.step},
               {"loss", number_or_null(line.loss)},
               {"lr", line.lr},
               {"grad_norm", number_or_null(line.grad_norm)},
               {"update_ratio", number_or_null(line.update_ratio)},
               {"max_attention_score", number_or_null(line.max_attention_score)},
               {"skipped_steps", line.skipped_steps},
               {"images_per_second", line.images_per_second},
               {"data_wait", line.data_wait},
               {"seconds", line.seconds}};
  if (line.eval_loss) json["eval_loss"] = *line.eval_loss;
  if (line.align_loss) json["align_loss"] = *line.align_loss;
  if (line.rollbacks > 0) json["rollbacks"] = line.rollbacks;
  append_line(path_, json.dump());

  const auto add = [&](const char* tag, const std::optional<double>& value) {
    if (value) events_.add_scalar(tag, line.step, *value);
  };
  add("loss/train", line.loss);
  add("loss/align", line.align_loss);
  add("lr", line.lr);
  add("grad/norm", line.grad_norm);
  add("update/ratio", line.update_ratio);
  add("attention/max_score", line.max_attention_score);
  add("train/skipped_steps", static_cast<double>(line.skipped_steps));
  events_.add_scalar("perf/images_per_second", line.step, line.images_per_second);
  add("loss/eval", line.eval_loss);
}

}  // namespace uvit
