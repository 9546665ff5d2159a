#include "stoa/dist/table_exchange.h"

namespace stoa::dist {

at::Tensor TableExchange::exchange(const at::Tensor& rows, const Counts& send, const Counts& receive) {
  return group_->all_to_all(rows, send, receive);
}

void TableExchange::sum(const at::Tensor& numbers) {
  group_->all_reduce(numbers);
}

}  // namespace stoa::dist
