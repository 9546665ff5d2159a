#include "stoa/base/format.h"

#define FMT_HEADER_ONLY
#include <fmt/args.h>
#include <fmt/format.h>

namespace stoa {

std::string format_arguments(std::string_view text, std::span<const FormatArgument> arguments) {
  fmt::dynamic_format_arg_store<fmt::format_context> store;
  for (const FormatArgument& argument : arguments) {
    switch (argument.kind) {
      case FormatArgument::Kind::kBool:
        store.push_back(argument.whole != 0);
        break;
      case FormatArgument::Kind::kChar:
        store.push_back(static_cast<char>(argument.whole));
        break;
      case FormatArgument::Kind::kSigned:
        store.push_back(static_cast<std::int64_t>(argument.whole));
        break;
      case FormatArgument::Kind::kUnsigned:
        store.push_back(argument.whole);
        break;
      case FormatArgument::Kind::kFloat:
        store.push_back(static_cast<float>(argument.real));
        break;
      case FormatArgument::Kind::kDouble:
        store.push_back(argument.real);
        break;
      case FormatArgument::Kind::kText:
        store.push_back(argument.text);
        break;
    }
  }
  return fmt::vformat(text, store);
}

}  // namespace stoa
