// An event file that a new one goes on after: the first part is the end of its name, the rest its content.
#include <algorithm>

#include "fuzz.h"
#include "io/event_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest = uvit::fuzz::text_of(data, size);
  std::string name(uvit::fuzz::take_part(rest));
  std::replace(name.begin(), name.end(), '/', '_');
  std::replace(name.begin(), name.end(), '\0', '_');
  if (name.size() > 200) return 0;
  const auto& folder = uvit::fuzz::folder();
  folder.put("events.out.tfevents." + name, rest);
  return uvit::fuzz::read_or_refuse([&] {
    uvit::EventFile file(folder.path(), 3);
    file.add_scalar("loss", 3, 1.0);
  });
}
