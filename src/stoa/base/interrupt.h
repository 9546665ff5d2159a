#pragma once

namespace stoa {

/// From now on the first SIGINT or SIGTERM sets a flag that interrupted() reports, and says so on standard
/// error unless quiet; the second ends the process at once with exit code 130.
void install_interrupt_handler();

/// True once the user has asked to stop. Long work looks here between steps, saves, and throws Interrupted.
bool interrupted();

}  // namespace stoa
