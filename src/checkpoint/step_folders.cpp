#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "core/error.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// The number N of a folder called step-N; -1 for any other name.
std::int64_t step_number(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return -1;
  std::int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto result = std::from_chars(name.data() + kPrefix.size(), end, step);
  return result.ec == std::errc() && result.ptr == end ? step : -1;
}

/// Step folders of RUN/checkpoints, oldest first.
std::vector<std::pair<std::int64_t, fs::path>> step_folders(const fs::path& checkpoints) {
  std::vector<std::pair<std::int64_t, fs::path>> folders;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    const std::int64_t step = step_number(entry.path().filename().string());
    if (step >= 0 && entry.is_directory(ignored)) folders.emplace_back(step, entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

}  // namespace

void link_checkpoint(const fs::path& run, const std::string& name, const fs::path& step_folder) {
  const fs::path link = run / "checkpoints" / name;
  const fs::path temporary = run / "checkpoints" / (name + ".tmp");
  try {
    fs::remove(temporary);
    fs::create_directory_symlink(step_folder.filename(), temporary);
    fs::rename(temporary, link);
  } catch (const fs::filesystem_error& error) {
    throw Error(fmt::format("cannot make the link {}: {}", link.string(), error.code().message()));
  }
  sync_path(run / "checkpoints");
}

namespace {

/// Under the name of remains first: a crash in the middle leaves no step folder with files missing.
void remove_folder(const fs::path& folder) {
  fs::path doomed = folder;
  std::error_code failed;
  if (step_number(folder.filename().string()) >= 0) {
    doomed += ".tmp";
    fs::remove_all(doomed, failed);
    fs::rename(folder, doomed, failed);
  }
  if (!failed) fs::remove_all(doomed, failed);
  if (failed) throw Error(fmt::format("cannot remove the old checkpoint {}: {}", folder.string(), failed.message()));
}

/// What a crash left of a save: step-N.tmp, step-N.old. The latter is put back where the crash came between two renames and step-N is missing.
void remove_remains(const fs::path& checkpoints) {
  std::vector<fs::path> remains;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    const fs::path ending = entry.path().extension();
    if ((ending == ".tmp" || ending == ".old") && step_number(entry.path().stem().string()) >= 0) remains.push_back(entry.path());
  }
  for (const fs::path& folder : remains) {
    const fs::path stands = checkpoints / folder.stem();
    if (folder.extension() == ".old" && !fs::exists(stands, ignored))
      fs::rename(folder, stands, ignored);
    else
      remove_folder(folder);
  }
}

/// Where the link RUN/checkpoints/<name> leads; "" where there is none.
std::string link_target(const fs::path& checkpoints, const char* name) {
  std::error_code no_link;
  return fs::read_symlink(checkpoints / name, no_link).filename().string();
}

}  // namespace

void prune_checkpoints(const fs::path& run, std::int64_t keep) {
  const fs::path checkpoints = run / "checkpoints";
  remove_remains(checkpoints);
  if (keep <= 0) return;
  std::set<std::string> spared;
  for (const char* name : {"latest", "best", "best_score"}) spared.insert(link_target(checkpoints, name));
  auto folders = step_folders(checkpoints);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < folders.size(); ++i) {
    const fs::path& folder = folders[i].second;
    if (!spared.contains(folder.filename().string())) remove_folder(folder);
  }
}

std::vector<fs::path> resumable_checkpoints(const fs::path& run) {
  const fs::path checkpoints = run / "checkpoints";
  remove_remains(checkpoints);
  const std::int64_t latest = step_number(link_target(checkpoints, "latest"));
  std::vector<fs::path> newest_first;
  auto folders = step_folders(checkpoints);
  const bool link_holds = std::any_of(folders.begin(), folders.end(), [&](const auto& folder) { return folder.first == latest; });
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder)
    if (!link_holds || folder->first <= latest) newest_first.push_back(folder->second);
  return newest_first;
}

void remove_checkpoints_beyond(const fs::path& run, std::int64_t step) {
  for (const auto& [number, folder] : step_folders(run / "checkpoints"))
    if (number > step) remove_folder(folder);
}

bool has_checkpoints(const fs::path& run) { return !step_folders(run / "checkpoints").empty(); }

fs::path find_step_folder(const fs::path& path) {
  if (!fs::exists(path)) throw Error(fmt::format("no such checkpoint: {}", path.string()));
  if (fs::is_regular_file(path / "state.json")) return fs::canonical(path);  // through latest or best to the step folder
  const fs::path checkpoints = path / "checkpoints";
  if (fs::is_regular_file(checkpoints / "latest" / "state.json")) return fs::canonical(checkpoints / "latest");
  // The link is written after the folder: without it the newest folder is the one to take.
  const auto folders = step_folders(checkpoints);
  if (folders.empty())
    throw Error(fmt::format("{} holds no checkpoint: name a run folder, a step folder (one with state.json) or a weight file", path.string()));
  return folders.back().second;
}

fs::path run_of(const fs::path& path) {
  for (fs::path folder = path; folder.has_parent_path() && folder != folder.parent_path(); folder = folder.parent_path())
    if (folder.parent_path().filename() == "checkpoints") return folder.parent_path().parent_path();
  return {};
}

}  // namespace uvit
