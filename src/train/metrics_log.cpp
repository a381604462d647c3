#include "train/metrics_log.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/atomic_file.h"

namespace uvit {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// Rewrites the log without lines beyond `step`. @return the seconds of its last line
double drop_lines_beyond(const fs::path& path, std::int64_t step) {
  if (!fs::exists(path)) return 0;
  const std::string text = read_file(path);
  std::istringstream lines(text);
  std::string kept;
  double seconds = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || json.value("step", step + 1) > step) continue;
    seconds = json.value("seconds", seconds);
    kept += line + "\n";
  }
  if (kept != text) write_file(path, kept);
  return seconds;
}

}  // namespace

MetricsLog::MetricsLog(const fs::path& run, std::int64_t step)
    : path_(run / "metrics.jsonl"), seconds_before_(drop_lines_beyond(path_, step)), events_(run) {}

void MetricsLog::write(const MetricsLine& line) {
  Json json = {{"step", line.step},
               {"loss", line.loss},
               {"lr", line.lr},
               {"grad_norm", line.grad_norm ? Json(*line.grad_norm) : Json(nullptr)},
               {"images_per_second", line.images_per_second},
               {"data_wait", line.data_wait},
               {"seconds", line.seconds}};
  if (line.eval_loss) json["eval_loss"] = *line.eval_loss;
  if (line.align_loss) json["align_loss"] = *line.align_loss;
  append_line(path_, json.dump());

  events_.add_scalar("loss/train", line.step, line.loss);
  if (line.align_loss) events_.add_scalar("loss/align", line.step, *line.align_loss);
  events_.add_scalar("lr", line.step, line.lr);
  if (line.grad_norm) events_.add_scalar("grad/norm", line.step, *line.grad_norm);
  events_.add_scalar("perf/images_per_second", line.step, line.images_per_second);
  if (line.eval_loss) events_.add_scalar("loss/eval", line.step, *line.eval_loss);
}

}  // namespace uvit
