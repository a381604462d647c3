#pragma once

namespace uvit {

/// Runs this program's own command line in `count` processes on this machine and waits for them, without taking part: each is told its rank (RANK,
/// WORLD_SIZE, ...; read_launch) and where to meet, on the loopback interface. SIGINT and SIGTERM go on to all of them. When one dies or fails, the others
/// are ended, and one line on stderr says which one died, and how. Should this process die, they get SIGTERM.
/// @return the exit code of the program: 0, or that of the process that failed
int run_processes(int count);

}  // namespace uvit
