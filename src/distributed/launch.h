#pragma once
#include <map>
#include <string>

namespace uvit {

using Environment = std::map<std::string, std::string>;

/// Which of how many processes this one is, and where they meet.
struct Launch {
  int rank = 0, world = 1;              ///< of all processes
  int local_rank = 0, local_world = 1;  ///< of those on this machine
  std::string master_addr = "127.0.0.1";
  int master_port = 29500;
  bool agent_store = false;  ///< torchrun's agent hosts the store: rank 0 is a client of it as the others are
  int restarts = 0;          ///< times that an elastic launcher has started all processes anew
  int store_fd = -1;         ///< bound socket for rank 0's store, handed down by `--processes`; -1: it binds master_port itself
  std::string launcher;      ///< "torchrun", "mpirun", "srun", "PMI", "--processes", "RANK and WORLD_SIZE"; "" for a process of its own

  bool alone() const { return world == 1; }
  /// Whether the launcher starts the same command line again when a process dies, so that it must serve the first start and those after it.
  bool elastic() const { return launcher == "torchrun"; }
};

/// Reads the variables of torchrun (RANK, WORLD_SIZE, ...), Open MPI (OMPI_COMM_WORLD_*), a Slurm step (SLURM_PROCID, ...; a batch script is no step) and
/// PMI (PMI_RANK, ...), the first of these that is there. MASTER_ADDR and MASTER_PORT say where to meet; without them: this machine if all processes
/// are on it, else the first node of the Slurm step, and a port that hangs on the job.
/// Throws Error for numbers that are none or do not fit, and where several machines need MASTER_ADDR.
Launch read_launch(const Environment& environment);

/// This process's environment.
Environment process_environment();

/// Tells a launcher why this process ends: torchrun in the file that it looks at ($TORCHELASTIC_ERROR_FILE), --processes through a pipe.
/// @param secondary  another process failed, and this one lost it. torchrun, which takes the first message for the cause, is not told then.
/// @return whether the launcher says it to the user
bool report_to_launcher(const std::string& message, bool secondary);

}  // namespace uvit
