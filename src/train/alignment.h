#pragma once
#include <memory>
#include <string>

#include "config/config.h"
#include "model/uvit.h"

namespace uvit {

/// The encoder of train.align_encoder, whose features the patches of block model.align_block learn to predict (REPA, arXiv:2410.06940).
/// A TorchScript module: images [B, C, S, S] float32 in [0, 1], S = train.align_size, C as the images have it, to tokens [B, N, D] without class
/// tokens; D = model.align_dim, and N the number of patches, or a square grid that is brought to theirs (bilinear).
class AlignmentEncoder {
 public:
  /// Runs the module once on black. Throws Error naming the file and both shapes for what cannot be loaded, run or brought to the patches.
  AlignmentEncoder(const Config& config, at::Device device);
  ~AlignmentEncoder();

  /// @param x0 clean images [B, C, H, W] in [-1, 1]; @return [B, patches, align_dim] float32, without gradient
  at::Tensor features(const at::Tensor& x0) const;

 private:
  struct Module;
  std::string file_;
  std::int64_t size_, dim_, rows_, columns_;
  std::unique_ptr<Module> module_;
};

/// The encoder that the configuration asks for; null where it asks for none.
/// Throws Error unless model.align_dim and train.align_encoder are given together, and for images that are latents.
std::unique_ptr<AlignmentEncoder> make_alignment_encoder(const Config& config, bool latents, at::Device device);

/// -mean over the patches of the cosine between projected and encoded features, in float32. @param projected, features [B, N, D]; @return [B]
at::Tensor alignment_loss(const at::Tensor& projected, const at::Tensor& features);

}  // namespace uvit
