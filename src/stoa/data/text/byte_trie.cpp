#include "stoa/data/text/byte_trie.h"

#include <algorithm>
#include <deque>

namespace stoa {
namespace {

/// Keys from `low` to `high` share the `depth` bytes that lead to `node`.
struct Branch {
  std::int32_t node;
  std::size_t low, high, depth;
};

}  // namespace

ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>> keys) : nodes_(512) {
  std::ranges::stable_sort(keys, {}, [](const auto& key) { return key.first; });
  nodes_[kRoot].parent = kRoot;  // taken, and no base but that of leaves leads to it
  nodes_[kRoot].base = 1;
  std::deque<Branch> open{{kRoot, 0, keys.size(), 0}};
  std::vector<std::uint8_t> bytes;
  std::vector<std::size_t> starts;
  for (; !open.empty(); open.pop_front()) {
    auto [node, low, high, depth] = open.front();
    for (; low < high && keys[low].first.size() == depth; ++low)
      nodes_[static_cast<std::size_t>(node)].id = keys[low].second;
    if (low == high) continue;
    bytes.clear();
    starts.clear();
    for (std::size_t i = low; i < high; ++i) {
      const auto byte = static_cast<std::uint8_t>(keys[i].first[depth]);
      if (!bytes.empty() && bytes.back() == byte) continue;
      bytes.push_back(byte);
      starts.push_back(i);
    }
    starts.push_back(high);
    const std::int32_t base = place(bytes);
    nodes_[static_cast<std::size_t>(node)].base = base;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      nodes_[static_cast<std::size_t>(base) + bytes[i]].parent = node;
      open.push_back({base + bytes[i], starts[i], starts[i + 1], depth + 1});
    }
  }
}

std::int32_t ByteTrie::walk(std::int32_t node, std::string_view bytes) const {
  for (const char byte : bytes) {
    node = step(node, byte);
    if (node == kNone) break;
  }
  return node;
}

/// A base at which the places of all `bytes`, which rise, are free.
std::int32_t ByteTrie::place(std::span<const std::uint8_t> bytes) {
  const auto free = [&](std::size_t at) { return nodes_[at].parent == kNone; };
  std::size_t tried = 0, taken = 0;
  for (std::size_t at = std::max<std::size_t>(first_free_, bytes[0] + 1u);; ++at) {
    const std::size_t base = at - bytes[0];
    if (base + 512 > nodes_.size()) nodes_.resize(std::max(base + 512, nodes_.size() * 3 / 2));
    ++tried;
    if (!free(at)) {
      ++taken;
      continue;
    }
    if (!std::ranges::all_of(bytes, [&](std::uint8_t byte) { return free(base + byte); })) continue;
    // where nearly all is taken the next search need not look again
    if (taken * 20 >= tried * 19) first_free_ = at;
    return static_cast<std::int32_t>(base);
  }
}

}  // namespace stoa
