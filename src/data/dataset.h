#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"

namespace uvit {

/// What a training sample draws when it is read: a function of the run's seed and the sample's global index.
struct SampleDraw {
  std::uint64_t seed = 0;
  std::uint64_t sample = 0;  ///< global sample index
  bool flip = false;         ///< mirror left and right
  bool noise = true;         ///< draw a latent from its posterior and a caption among several; false: its mean, the first caption
};

/// Images of one size with labels. Reading is const and safe from many threads.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  virtual std::int64_t channels() const = 0;
  virtual std::int64_t height() const = 0;
  virtual std::int64_t width() const = 0;
  virtual std::int64_t num_classes() const = 0;  ///< 0 where images have no class
  virtual std::vector<std::string> class_names() const { return {}; }
  /// Class of image `index`, in [0, num_classes); 0 without classes.
  virtual std::int64_t label(std::int64_t index) const = 0;
  /// Writes image `index` as uint8 [C, H, W]. Throws Error naming the image when it cannot be read.
  virtual void read(std::int64_t index, std::span<std::uint8_t> pixels) const = 0;
  /// Image `index` as training and evaluation take it, float [C, H, W]: pixels / 127.5 - 1, mirrored where the draw says so; a latent dataset gives
  /// scaled draws of its posterior. Throws Error as read() does.
  virtual void read_values(std::int64_t index, const SampleDraw& draw, std::span<float> values) const;
  /// Context (text) tokens of image `index`, float [context_tokens, context_dim]; of one of its captions where it has several.
  virtual void read_context(std::int64_t index, const SampleDraw& draw, std::span<float> values) const;
  /// The context of the empty text, which guidance takes as unconditional.
  virtual void read_empty_context(std::span<float> values) const;
  virtual std::int64_t context_tokens() const { return 0; }  ///< 0 where images have no captions
  virtual std::int64_t context_dim() const { return 0; }
  virtual bool latent() const { return false; }  ///< images are latents of data.autoencoder: read() does not serve them
  /// Name of image `index` for messages: a file name, or "file.gz[17]".
  virtual std::string describe(std::int64_t index) const = 0;
};

enum class Split { train, test };

/// A row of the dataset table.
struct DatasetRow {
  std::string name;
  std::string description;
  std::string default_path;
  std::int64_t native_size;      ///< pixels a side of the images as they are stored; 0: it varies
  std::int64_t native_channels;  ///< likewise
  /// Opens the data that `config` names. Throws Error for a missing or truncated file, or images smaller than asked.
  std::unique_ptr<Dataset> (*open)(const DataConfig& config, Split split);
  bool latent = false;           ///< images are latents of data.autoencoder
};

std::span<const DatasetRow> dataset_table();

/// Opens config.dataset, its images converted to config's channels and size, the first config.limit of them. Throws Error as the row's `open`, for an
/// unknown name, and when config.num_classes is neither 0 nor the number of classes there are.
std::unique_ptr<Dataset> open_dataset(const DataConfig& config, Split split);

/// True for a row whose images are latents, to be decoded by data.autoencoder.
bool is_latent_dataset(const std::string& name);

/// SHA-256 over the pixels of the first `limit` images (0: all) and their shape: the identity of a reference, whatever files it came from.
std::string content_hash(const Dataset& dataset, std::int64_t limit = 0);

}  // namespace uvit
