#include "distributed/launch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <limits>
#include <optional>
#include <vector>

#include "core/error.h"

extern char** environ;

namespace uvit {
namespace {

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  bool has(const std::string& name) const { return environment_.contains(name) && !environment_.at(name).empty(); }
  std::string text(const std::string& name, const std::string& fallback = "") const { return has(name) ? environment_.at(name) : fallback; }

  int number(const std::string& name, int least, int most = std::numeric_limits<int>::max()) const {
    const std::string value = text(name);
    int result = 0;
    const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (code != std::errc() || end != value.data() + value.size() || result < least || result > most)
      throw Error(most == std::numeric_limits<int>::max()
                      ? fmt::format("the environment has {}={}: a number from {} on is expected", name, value, least)
                      : fmt::format("the environment has {}={}: a number from {} to {} is expected", name, value, least, most));
    return result;
  }
  int number_or(const std::string& name, int least, int fallback) const { return has(name) ? number(name, least) : fallback; }

 private:
  const Environment& environment_;
};

/// Rank and world from variables of these names; the local ones where they are given, else those of one machine.
void read_ranks(const Variables& variables, const std::string& rank, const std::string& world, const std::string& local_rank,
                const std::string& local_world, Launch& launch) {
  launch.world = variables.number(world, 1);
  launch.rank = variables.number(rank, 0, launch.world - 1);
  launch.local_world = variables.number_or(local_world, 1, launch.world);
  launch.local_rank = variables.number_or(local_rank, 0, launch.rank % launch.local_world);
}

/// Element `node` of Slurm's "2(x3),1" = 2, 2, 2, 1; 0 where it has none.
int tasks_of_node(const std::string& text, int node) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    const std::size_t times = part.find("(x");
    const int tasks = std::atoi(part.c_str()), nodes = times == std::string::npos ? 1 : std::atoi(part.c_str() + times + 2);
    if (node < nodes) return tasks;
    node -= nodes;
    at = end + 1;
  }
  return 0;
}

/// First host of Slurm's "gpu[07-09,12],login": "gpu07".
std::string first_host(const std::string& list) {
  const std::size_t stop = list.find_first_of("[,");
  if (stop == std::string::npos || list[stop] == ',') return list.substr(0, stop);
  return list.substr(0, stop) + list.substr(stop + 1, list.find_first_of("-,]", stop) - stop - 1);
}

/// A port from 20000 to 39999, the same for all processes of the job of that name, and most likely not that of another job.
int port_of(const std::string& job) {
  std::uint32_t hash = 2166136261u;  // FNV-1a
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return 20000 + static_cast<int>(hash % 20000);
}

void read_slurm(const Variables& variables, Launch& launch) {
  launch.launcher = "srun";
  const std::string world = variables.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  read_ranks(variables, "SLURM_PROCID", world, "SLURM_LOCALID", "", launch);
  const std::string per_node = variables.text("SLURM_STEP_TASKS_PER_NODE", variables.text("SLURM_TASKS_PER_NODE"));
  if (const int tasks = tasks_of_node(per_node, variables.number_or("SLURM_NODEID", 0, 0)); tasks > 0) launch.local_world = tasks;
  if (launch.local_world < launch.world)
    launch.master_addr = first_host(variables.text("SLURM_STEP_NODELIST", variables.text("SLURM_JOB_NODELIST")));
  launch.master_port = port_of(variables.text("SLURM_JOB_ID") + "." + variables.text("SLURM_STEP_ID"));
}

/// One of the launchers that name a rank; false where none does.
bool read_launcher(const Variables& variables, Launch& launch) {
  if (variables.has("RANK") && variables.has("WORLD_SIZE")) {
    launch.launcher = variables.has("TORCHELASTIC_RUN_ID") ? "torchrun" : variables.has("UVIT_LAUNCHER") ? "--processes" : "RANK and WORLD_SIZE";
    read_ranks(variables, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", launch);
    launch.agent_store = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
    launch.restarts = variables.number_or("TORCHELASTIC_RESTART_COUNT", 0, 0);
    launch.store_fd = variables.number_or("UVIT_STORE_FD", 0, -1);
  } else if (variables.has("OMPI_COMM_WORLD_RANK")) {
    launch.launcher = "mpirun";
    read_ranks(variables, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", launch);
    if (variables.has("PMIX_NAMESPACE")) launch.master_port = port_of(variables.text("PMIX_NAMESPACE"));
  } else if (variables.has("SLURM_PROCID") && (variables.has("SLURM_STEP_ID") || variables.has("SLURM_STEP_NUM_TASKS"))) {
    read_slurm(variables, launch);
  } else if (variables.has("PMI_RANK")) {
    launch.launcher = "PMI";
    read_ranks(variables, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", launch);
  } else {
    return false;
  }
  return true;
}

}  // namespace

Launch read_launch(const Environment& environment) {
  const Variables variables(environment);
  Launch launch;
  if (!read_launcher(variables, launch)) return launch;
  if (launch.alone() && !launch.elastic()) return Launch{};
  if (!variables.has("MASTER_ADDR") && launch.launcher != "srun" && launch.local_world < launch.world)
    throw Error(fmt::format("{} starts processes on several machines: set MASTER_ADDR and MASTER_PORT to where rank 0 runs (mpirun -x MASTER_ADDR=HOST)",
                            launch.launcher));
  launch.master_addr = variables.text("MASTER_ADDR", launch.master_addr);
  if (variables.has("MASTER_PORT")) launch.master_port = variables.number("MASTER_PORT", 1, 65535);
  return launch;
}

Environment process_environment() {
  Environment environment;
  for (char** entry = environ; *entry; ++entry) {
    const std::string line = *entry;
    const std::size_t equals = line.find('=');
    if (equals != std::string::npos) environment[line.substr(0, equals)] = line.substr(equals + 1);
  }
  return environment;
}

bool report_to_launcher(const std::string& message, bool secondary) {
  if (const char* fd = std::getenv("UVIT_ERROR_FD")) {
    const std::string words = fmt::format("{:d}{}", secondary, std::string_view(message).substr(0, 4000));  // fits a pipe's buffer: writing never waits
    return ::write(std::atoi(fd), words.data(), words.size()) == static_cast<ssize_t>(words.size());
  }
  const char* path = std::getenv("TORCHELASTIC_ERROR_FILE");
  if (!path || !*path || secondary) return false;
  std::string quoted;
  for (const char c : message) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) quoted += c;
  }
  std::ofstream(path) << fmt::format(R"({{"message":{{"message":"{}","extraInfo":{{"timestamp":"{}"}}}}}})", quoted, std::time(nullptr));
  return false;
}

}  // namespace uvit
