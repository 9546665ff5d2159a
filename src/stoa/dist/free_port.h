#pragma once

namespace stoa::dist {

/// A port of this machine that no process listens on, drawn anew at every call. It lies below those that
/// systems give to whoever asks for any: such a one could be taken again before rank 0 listens. Throws
/// IoError where none is found.
int free_port();

}  // namespace stoa::dist
