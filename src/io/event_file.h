#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace uvit {

/// A TensorBoard event file: TFRecords of Event protocol buffers with masked CRC-32C.
class EventFile {
 public:
  /// Makes `folder` and in it events.out.tfevents.<seconds>.<host>.<pid>, with a number behind where that is taken. Throws Error when it cannot.
  explicit EventFile(const std::filesystem::path& folder);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // A write that fails throws Error and leaves the records before it whole.
  void add_scalar(const std::string& tag, std::int64_t step, double value);
  /// @param png  an encoded image of height x width pixels with `channels` channels
  void add_image(const std::string& tag, std::int64_t step, std::span<const std::byte> png, int height, int width, int channels);
  void add_text(const std::string& tag, std::int64_t step, const std::string& text);
  const std::filesystem::path& path() const { return path_; }

 private:
  void write_record(const std::string& event);
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace uvit
