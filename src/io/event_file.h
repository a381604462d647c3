#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace uvit {

/// Counts of values in neighbouring ranges: bucket i holds what lies in (limits[i - 1], limits[i]], the first one everything up to limits[0].
struct Histogram {
  double min = 0, max = 0, num = 0, sum = 0, sum_squares = 0;
  std::vector<double> limits, counts;
};

/// A setting of a run, for TensorBoard's table of runs.
struct HParam {
  std::string name;
  std::variant<bool, double, std::string> value;
};

/// A TensorBoard event file: TFRecords of Event protocol buffers with masked CRC-32C. The times in it never run backwards, nor do its name and its
/// times lie before those of the files that are in the folder already, whatever the system's clock does.
class EventFile {
 public:
  /// Makes `folder` and in it events.out.tfevents.<seconds>.<host>.<pid>, with a number behind where that is taken. Throws Error when it cannot.
  /// @param first_step  of a run that goes on: what earlier files hold of this step and later ones is shown no more (TensorBoard's purge_step)
  explicit EventFile(const std::filesystem::path& folder, std::optional<std::int64_t> first_step = std::nullopt);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // A write that fails throws Error and leaves the records before it whole.
  void add_scalar(const std::string& tag, std::int64_t step, double value);
  /// @param png  an encoded image of height x width pixels with `channels` channels
  void add_image(const std::string& tag, std::int64_t step, std::span<const std::byte> png, int height, int width, int channels);
  void add_text(const std::string& tag, std::int64_t step, const std::string& text);
  void add_histogram(const std::string& tag, std::int64_t step, const Histogram& histogram);
  /// The settings of the run and the tags of the scalars that it is judged by, for the hparams plugin.
  void add_hparams(const std::string& run, const std::vector<HParam>& settings, const std::vector<std::string>& metric_tags);
  /// How the run that add_hparams began ended, for the same plugin.
  void end_hparams(bool success);
  /// What was written of `step` and later ones is shown no more.
  void purge_from(std::int64_t step);
  const std::filesystem::path& path() const { return path_; }

 private:
  double now() const;
  void write_value(std::int64_t step, const std::string& value);
  void write_record(const std::string& event);
  double started_wall_ = 0;  // seconds since 1970
  std::chrono::steady_clock::time_point started_;
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace uvit
