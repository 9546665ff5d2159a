#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace stoa {

/// Byte strings with an id each, as a double array: one load a byte to go down, so that the longest string
/// that a text begins with is found without hashing or copying.
class ByteTrie {
 public:
  static constexpr std::int32_t kRoot = 0, kNone = -1;

  ByteTrie() : ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>>()) {}
  /// Of a string that comes twice, the later id counts.
  explicit ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>> keys);

  /// The node below `node` by one byte, or kNone.
  std::int32_t step(std::int32_t node, char byte) const {
    const std::int32_t next = nodes_[static_cast<std::size_t>(node)].base + static_cast<std::uint8_t>(byte);
    return nodes_[static_cast<std::size_t>(next)].parent == node ? next : kNone;
  }
  /// The node at the end of `bytes` below `node`, or kNone.
  std::int32_t walk(std::int32_t node, std::string_view bytes) const;
  /// The id of the string that ends at a node, or kNone.
  std::int32_t id(std::int32_t node) const { return nodes_[static_cast<std::size_t>(node)].id; }
  std::int32_t find(std::string_view bytes) const {
    const std::int32_t node = walk(kRoot, bytes);
    return node == kNone ? kNone : id(node);
  }

  struct Match {
    std::int32_t id = kNone;
    std::size_t length = 0;
  };
  /// The longest string below `node` that `text` begins with; not the empty one.
  Match longest(std::int32_t node, std::string_view text) const {
    Match match;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = step(node, text[i]);
      if (node == kNone) break;
      if (id(node) != kNone) match = {id(node), i + 1};
    }
    return match;
  }

 private:
  struct Node {
    std::int32_t base = 0, parent = kNone, id = kNone;
  };
  std::int32_t place(std::span<const std::uint8_t> bytes);

  std::vector<Node> nodes_;
  std::size_t first_free_ = 1;  // no place before it is worth trying
};

}  // namespace stoa
