#pragma once
#include <stdexcept>
#include <string>

namespace uvit {

/// What a user can cause: a missing file, a corrupt checkpoint, a wrong shape, an unknown key, a full disk.
/// The message is one line that says what is wrong, where, and what to do. The program prints it and exits with 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A wrong command line. The program prints it and exits with 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

}  // namespace uvit
