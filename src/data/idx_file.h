#pragma once
#include <filesystem>
#include <string>

#include "data/dataset.h"
#include "data/memory_dataset.h"

namespace uvit {

/// Reads one split of a folder with MNIST's four files: train-images-idx3-ubyte, train-labels-idx1-ubyte and t10k-..., each plain or with .gz (also
/// with a dot before idx, as some copies are named). num_classes and class_names are left to the caller. Format: big-endian magic 0x00000803 or
/// 0x00000801, one length a dimension, the bytes (Y. LeCun, "The MNIST database").
/// Throws Error naming the file when one is missing, cut (expected and found bytes), of a wrong magic, or when images and labels differ in number.
/// @param advice  ends the message for a missing file: how to get the data
RawImages read_idx_split(const std::filesystem::path& folder, Split split, const std::string& advice);

}  // namespace uvit
