#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

#include "stoa/base/json.h"
#include "stoa/tensor/safetensors.h"

namespace stoa::bench {

/// Work that bench/run.py times. The constructor of a derived class does everything that is not timed.
class Work {
 public:
  virtual ~Work() = default;
  /// One timed repetition.
  virtual void run() = 0;
  /// What the driver is told when all is ready: "parameters", "flops", "bytes" of one repetition, the
  /// resolved "recipe".
  virtual Json describe() { return Json::object(); }
  /// Numbers that add up over repetitions, e.g. {"waited": seconds}; asked for before and after some of them.
  virtual Json tallies() { return Json::object(); }
  /// Inputs and results, from which a peer sees whether it computes the same.
  virtual TensorFile reference();
};

/// Makes the work that argv[1], a JSON object, describes, and serves it: prints one line of JSON when ready,
/// then answers each line of standard input with one. "run N" does N repetitions: {"seconds": [...],
/// "peak_memory": bytes, "tallies": what they added}; "save FILE" writes reference(): {"saved": FILE}. Ends
/// with its input. An error is
/// {"error": TEXT} and exit code 1.
int serve(int argc, char** argv, const std::function<std::unique_ptr<Work>(const Json& spec)>& make);

/// Where a spec's work is done: its "device", "cpu" where it names none.
c10::Device device(const Json& spec);

/// The integer at `key` of a spec. Throws ConfigError naming the key where it is not there.
std::int64_t integer(const Json& spec, const char* key);

}  // namespace stoa::bench
