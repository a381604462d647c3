#pragma once
#include <filesystem>

#include "config/config.h"
#include "data/dataset.h"
#include "io/event_file.h"
#include "model/uvit.h"

namespace uvit {

/// Samples config.sample.grid images (seeds from sample.seed on; classes in order for a conditional model, captions spread over
/// `dataset` for one with context) into RUN/samples/step-N.png and the event
/// file under samples/<profile>. The caller has put the weights of `profile` into the model.
/// Throws Interrupted (interrupt.h) between two steps of the solver after a signal.
/// @return the file
std::filesystem::path write_preview(UViT& model, const Config& config, const std::filesystem::path& run, std::int64_t step,
                                    const std::string& profile, EventFile& events, const Dataset& dataset);

}  // namespace uvit
