#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace stoa {

/// What the columns of prepared rows are.
struct TabularSchema {
  struct Field {
    std::string name;
    std::int64_t size = 0;     ///< ids are below it
    bool has_unknown = false;  ///< id 0 stands for values that are rare or new
  };
  std::vector<Field> fields;          ///< categorical
  std::vector<std::string> numerics;  ///< in [0, 1] or as prepared
  std::string vocabulary_hash;        ///< of names, sizes and all values: equal for equal encodings
  /// vocabulary_hash of the data whose vocabulary this one continues (its ids are kept, new ones follow), or
  /// empty.
  std::string grown_from = {};
};

enum class TabularSplit { kTrain, kValidation, kTest };

}  // namespace stoa
