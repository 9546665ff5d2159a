#pragma once

#include <memory>
#include <vector>

#include "stoa/dist/group.h"
#include "stoa/optim/optimizer.h"
#include "stoa/optim/part.h"

namespace stoa::dist {

/// An update rule whose parameters marked `dealt` are other ones on every rank of the group, and the rest
/// alike. Norms of all gradients together, and what clips by them, become those of all ranks; what goes by
/// slice (LAMB's ratios, clipping of each) is right as it is. Where a rank has parts of parameters, `within`
/// adds up the sums of squares of their slices, as optim::SumOverParts says; it may be empty. Every rank
/// calls clipping() and step() together.
std::unique_ptr<optim::Optimizer> join_norms(std::unique_ptr<optim::Optimizer> rule, std::vector<bool> dealt,
                                             std::shared_ptr<Group> group, optim::SumOverParts within = {});

}  // namespace stoa::dist
