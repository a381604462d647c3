#include <torch/torch.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "distributed/launch.h"
#include "support/scratch.h"

using namespace uvit;
using namespace uvit::test;

namespace {

Environment with(Environment environment, const Environment& more) {
  for (const auto& [name, value] : more) environment.insert_or_assign(name, value);
  return environment;
}

}  // namespace

TEST_CASE("without a launcher a process is alone") {
  const Launch launch = read_launch({{"HOME", "/root"}, {"RANK", "3"}});
  CHECK(launch.alone());
  CHECK(launch.rank == 0);
  CHECK(launch.launcher.empty());
  CHECK_FALSE(launch.elastic());
}

TEST_CASE("torchrun's variables") {
  const Environment environment = {{"RANK", "5"},
                                   {"WORLD_SIZE", "8"},
                                   {"LOCAL_RANK", "1"},
                                   {"LOCAL_WORLD_SIZE", "4"},
                                   {"MASTER_ADDR", "node7"},
                                   {"MASTER_PORT", "12345"},
                                   {"TORCHELASTIC_RUN_ID", "none"},
                                   {"TORCHELASTIC_RESTART_COUNT", "2"},
                                   {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
  const Launch launch = read_launch(environment);
  CHECK(launch.rank == 5);
  CHECK(launch.world == 8);
  CHECK(launch.local_rank == 1);
  CHECK(launch.local_world == 4);
  CHECK(launch.master_addr == "node7");
  CHECK(launch.master_port == 12345);
  CHECK(launch.restarts == 2);
  CHECK(launch.agent_store);
  CHECK(launch.elastic());
}

TEST_CASE("torchrun with one process is elastic, and alone") {
  const Launch launch = read_launch({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"TORCHELASTIC_RUN_ID", "none"}});
  CHECK(launch.alone());
  CHECK(launch.elastic());
}

TEST_CASE("Open MPI: one machine needs no address, several do") {
  const Environment environment = {{"OMPI_COMM_WORLD_RANK", "1"},
                                   {"OMPI_COMM_WORLD_SIZE", "4"},
                                   {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                   {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                                   {"OMPI_COMM_WORLD_NODE_RANK", "1"}};
  Launch launch = read_launch(environment);
  CHECK(launch.launcher == "mpirun");
  CHECK(launch.rank == 1);
  CHECK(launch.world == 4);
  CHECK(launch.master_addr == "127.0.0.1");
  CHECK(launch.master_port == 29500);
  const Environment two = with(environment, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  CHECK(error_of([&] { read_launch(two); }).find("MASTER_ADDR") != std::string::npos);
  launch = read_launch(with(two, {{"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "4000"}}));
  CHECK(launch.master_addr == "10.0.0.1");
  CHECK(launch.master_port == 4000);
  CHECK(read_launch(with(environment, {{"PMIX_NAMESPACE", "prterun-1"}})).master_port >= 20000);
}

TEST_CASE("a Slurm step: ranks, tasks a node, the first node, a port of the job") {
  const Environment environment = {{"SLURM_PROCID", "4"},   {"SLURM_NTASKS", "7"},  {"SLURM_LOCALID", "0"},
                                   {"SLURM_NODEID", "2"},   {"SLURM_JOB_ID", "4711"}, {"SLURM_STEP_ID", "0"},
                                   {"SLURM_TASKS_PER_NODE", "2(x2),3"}, {"SLURM_JOB_NODELIST", "gpu[07-09,12],login"}};
  const Launch launch = read_launch(environment);
  CHECK(launch.launcher == "srun");
  CHECK(launch.rank == 4);
  CHECK(launch.world == 7);
  CHECK(launch.local_rank == 0);
  CHECK(launch.local_world == 3);
  CHECK(launch.master_addr == "gpu07");
  CHECK(launch.master_port >= 20000);
  CHECK(launch.master_port < 40000);
  const Environment first = with(environment, {{"SLURM_PROCID", "0"}, {"SLURM_NODEID", "0"}});
  CHECK(read_launch(first).local_world == 2);
  CHECK(read_launch(first).master_port == launch.master_port);
  CHECK(read_launch(with(first, {{"SLURM_JOB_ID", "4712"}})).master_port != launch.master_port);
  CHECK(read_launch(with(first, {{"SLURM_JOB_NODELIST", "a1,b2"}})).master_addr == "a1");
  // All on this node.
  CHECK(read_launch(with(first, {{"SLURM_NTASKS", "3"}, {"SLURM_TASKS_PER_NODE", "3"}})).master_addr == "127.0.0.1");
}

TEST_CASE("a Slurm batch script is no step: its program is alone") {
  CHECK(read_launch({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_JOB_ID", "1"}}).alone());
}

TEST_CASE("PMI, and the first launcher that is there") {
  const Environment pmi = {{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "2"}, {"MASTER_ADDR", "h"}};
  const Launch launch = read_launch(pmi);
  CHECK(launch.launcher == "PMI");
  CHECK(launch.rank == 2);
  CHECK(launch.local_world == 2);
  CHECK(read_launch(with(pmi, {{"RANK", "0"}, {"WORLD_SIZE", "2"}})).launcher == "RANK and WORLD_SIZE");
}

TEST_CASE("numbers of a launcher that are none, or do not fit, are named") {
  const auto error = [](const std::string& rank, const std::string& world) {
    return error_of([&] { read_launch({{"RANK", rank}, {"WORLD_SIZE", world}}); });
  };
  CHECK(error("2", "2").find("RANK=2: a number from 0 to 1") != std::string::npos);
  CHECK(error("x", "2").find("RANK=x") != std::string::npos);
  CHECK(error("0", "0").find("WORLD_SIZE=0: a number from 1 on") != std::string::npos);
  CHECK(error("0", "2x").find("WORLD_SIZE=2x") != std::string::npos);
  const Environment port = {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "70000"}};
  CHECK(error_of([&] { read_launch(port); }).find("MASTER_PORT=70000") != std::string::npos);
}

TEST_CASE("torchrun finds the reason of a failure in its file, unless another process failed first") {
  const ScratchFolder scratch;
  const std::string path = (scratch / "error.json").string();
  ::setenv("TORCHELASTIC_ERROR_FILE", path.c_str(), 1);
  CHECK_FALSE(report_to_launcher("lost", true));
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK_FALSE(report_to_launcher("no \"disk\" in C:\\", false));
  ::unsetenv("TORCHELASTIC_ERROR_FILE");
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  CHECK(text.str().starts_with(R"({"message":{"message":"no \"disk\" in C:\\","extraInfo":{"timestamp":")"));
}
