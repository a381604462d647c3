#pragma once
#include <memory>
#include <string>

#include "metrics/feature_network.h"

namespace uvit {

/// "script:FILE.pt": a TorchScript module, with FILE.toml beside it:
///   size = 224                      pixels a side that images are brought to; 0: left as they are
///   resize = "clean-fid"            row of the resize table
///   mean = [0.485, 0.456, 0.406]    of grey levels in [0, 1], a value a channel; x = (grey / 255 - mean) / std
///   std = [0.229, 0.224, 0.225]
///   output = "features"             key, where the module returns a dict; index, where it returns a tuple; left out for a tensor
/// The output is [N, D], or [N, D, ...] whose further sides are averaged. Loading runs the module once, to learn D.
/// Throws Error naming the file for what cannot be loaded, an unknown or missing key, a value of a wrong kind, an output that is not there.
std::unique_ptr<FeatureNetwork> load_script_network(const std::string& file, const NetworkOptions& options);

}  // namespace uvit
