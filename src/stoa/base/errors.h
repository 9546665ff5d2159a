#pragma once

#include <stdexcept>
#include <string>

namespace stoa {

/// Base of every error Stoa reports. The message is one line: where, what was found, what is needed, what to
/// try.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  /// Exit code of the command that ends with this error.
  virtual int exit_code() const noexcept { return 1; }
};

/// A recipe, an option or a command line that cannot be honoured. Exit code 2.
class ConfigError : public Error {
 public:
  using Error::Error;
  int exit_code() const noexcept override { return 2; }
};

/// Data that is missing, truncated, altered or out of range. Exit code 3.
class DataError : public Error {
 public:
  using Error::Error;
  int exit_code() const noexcept override { return 3; }
};

/// A device that is missing or out of memory. Exit code 4.
class DeviceError : public Error {
 public:
  using Error::Error;
  int exit_code() const noexcept override { return 4; }
};

/// Tensors whose shapes do not fit together. Exit code 1.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A file or folder that cannot be read or written. Exit code 1.
class IoError : public Error {
 public:
  using Error::Error;
};

/// Numbers that are not finite where they must be. Exit code 1; the trainer adds the step and the last good
/// checkpoint.
class NumericError : public Error {
 public:
  using Error::Error;
};

/// Thrown where long work stops because the user asked for it (Ctrl-C). Exit code 130.
class Interrupted : public Error {
 public:
  using Error::Error;
  int exit_code() const noexcept override { return 130; }
};

}  // namespace stoa
