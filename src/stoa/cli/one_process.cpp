#include "stoa/cli/one_process.h"

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/environment.h"
#include "stoa/dist/last_words.h"

namespace stoa::cli {

void require_one_process(const std::string& command) {
  const auto place = dist::read_place();
  if (place.world == 1 || (place.launcher == "Slurm" && place.rank == 0)) return;
  throw ConfigError(
      format("{0} is the work of one process, and {1} were started, each of which would do all of it; run "
             "`stoa {0}` itself, without a launcher",
             command, place.world));
}

bool another_says_it() {
  if (dist::has_met_others()) return false;
  try {
    return dist::read_place().local_rank > 0;
  } catch (const ConfigError&) {  // of a launcher's variables, which differ from process to process
    return false;
  }
}

}  // namespace stoa::cli
