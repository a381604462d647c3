#pragma once
#include <cstdint>
#include <vector>

#include "data/image_io.h"

namespace uvit {

/// An animated PNG (the third edition of the PNG specification, sections 11.3.4 and 11.3.5) that repeats for ever; a viewer that knows no animation shows
/// the first frame. Throws Error when there is no frame, or frames differ in size or channels.
/// @param frame_ms  milliseconds a frame; @param last_ms of the last one
std::vector<std::byte> encode_apng(const std::vector<Image>& frames, std::int64_t frame_ms, std::int64_t last_ms);

}  // namespace uvit
