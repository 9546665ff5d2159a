#pragma once

#include <memory>
#include <vector>

#include "stoa/dist/group.h"
#include "stoa/optim/optimizer.h"

namespace stoa::dist {

/// An update rule whose parameters marked `dealt` are other ones on every rank of the group, and the rest
/// alike. Norms of all gradients together, and what clips by them, become those of all ranks; what goes by
/// slice (LAMB's ratios, clipping of each) is right as it is. Every rank calls clipping() and step()
/// together.
std::unique_ptr<optim::Optimizer> join_norms(std::unique_ptr<optim::Optimizer> rule, std::vector<bool> dealt,
                                             std::shared_ptr<Group> group);

}  // namespace stoa::dist
