// A configuration, and what follows a border as an override of the command line. What is read must print as TOML that reads back to the same.
#include "config/config.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return uvit::fuzz::read_or_refuse([&] {
    std::string_view rest = uvit::fuzz::text_of(data, size);
    const std::string text(uvit::fuzz::take_part(rest));
    const uvit::Config config = uvit::parse_config(text, "x.toml", rest.empty() ? std::vector<std::string>{} : std::vector{std::string(rest)});
    if (!(uvit::parse_config(uvit::to_toml(config), "again.toml") == config)) std::abort();
  });
}
