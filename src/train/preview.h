#pragma once
#include <filesystem>

#include "config/config.h"
#include "data/dataset.h"
#include "data/image_io.h"
#include "distributed/process_group.h"
#include "io/event_file.h"
#include "model/uvit.h"

namespace uvit {

/// Samples config.sample.grid images: seeds from sample.seed on; classes in order for a conditional model, captions spread over `dataset` for one with
/// context. Called by every process, which draw together. Throws Interrupted (interrupt.h), in all of them, after a signal in any.
/// @return the grid, in rank 0
Image draw_preview(UViT& model, const Config& config, const Dataset& dataset, ProcessGroup& processes);
/// Writes it into RUN/samples/step-N.png and the event file under samples/<profile>. @return the file
std::filesystem::path write_preview(const Image& grid, const std::filesystem::path& run, std::int64_t step, const std::string& profile, EventFile& events);

}  // namespace uvit
