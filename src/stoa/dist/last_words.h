#pragma once

#include <list>
#include <string>

// What a process says when it ends because of others, and whether it has met any.
namespace stoa::dist {

/// An operation under way, as long as this lives. `what` names rank, operation and group. Any thread.
class UnderWay {
 public:
  explicit UnderWay(std::string what);
  ~UnderWay();
  UnderWay(const UnderWay&) = delete;
  UnderWay& operator=(const UnderWay&) = delete;

 private:
  std::list<std::string>::iterator place_;
};

/// From now on an error that Gloo throws in a thread of its own, where nobody can catch it, ends this process
/// with one line that names the operations under way, and exit code 1, instead of aborting it. Any other
/// uncaught exception does what it did before. For World; `who` begins the line where nothing is under way.
void explain_errors_of_gloo(const std::string& who);

/// True once this process has met the others it was started with.
bool has_met_others();
void note_meeting();

}  // namespace stoa::dist
