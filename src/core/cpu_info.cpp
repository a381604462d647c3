#include "core/cpu_info.h"

#include <array>
#include <fstream>
#include <set>
#include <sstream>

namespace uvit {

std::string cpu_description() {
  static constexpr std::array kOfInterest = {"avx2",        "fma",      "avx512f",  "avx512bw", "avx512_vnni", "avx512_bf16",
                                             "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",    "asimd",
                                             "asimdhp",     "bf16",     "i8mm",     "sve",      "sve2"};
  std::ifstream stream("/proc/cpuinfo");
  std::string line, model;
  std::set<std::string> flags;
  while (std::getline(stream, line) && (model.empty() || flags.empty())) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("model name")) model = value;
    if (line.starts_with("flags") || line.starts_with("Features")) {
      std::istringstream words(value);
      for (std::string word; words >> word;) flags.insert(word);
    }
  }
  std::string text = (model.empty() ? "unknown CPU" : model) + ",";
  for (const char* name : kOfInterest)
    if (flags.contains(name)) text += std::string(" ") + name;
  if (text.ends_with(',')) text.pop_back();
  return text;
}

}  // namespace uvit
