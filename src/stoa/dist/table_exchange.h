#pragma once

#include <memory>

#include "stoa/dist/group.h"
#include "stoa/nn/embedding_exchange.h"

namespace stoa::dist {

/// Splits embedding tables over the ranks of a group: nn::SplitsRows::split(). For B ids of one rank's batch,
/// of which D are distinct within their fields and lie with other ranks, F fields and rows of W numbers, a
/// step sends
///   4 (F + 1) bytes to each other rank and 4 D: which rows a lookup asks for,
///   4 W for each row that the others ask this rank for,
///   4 F bytes to each other rank and (8 + 4 W) D: ids, counts and summed gradients,
/// and sums 8 bytes for the norm of the gradients and some hundred for the log over all ranks.
class TableExchange : public nn::RowExchange {
 public:
  explicit TableExchange(std::shared_ptr<Group> group) : group_(std::move(group)) {}

  std::int64_t rank() const override { return group_->rank(); }
  std::int64_t size() const override { return group_->size(); }
  at::Tensor exchange(const at::Tensor& rows, const Counts& send, const Counts& receive) override;
  void sum(const at::Tensor& numbers) override;

 private:
  std::shared_ptr<Group> group_;
};

}  // namespace stoa::dist
