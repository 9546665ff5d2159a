#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace stoa {

/// A value that format() takes: a number, a truth value, a character or text, which must outlive the call.
struct FormatArgument {
  enum class Kind { kBool, kChar, kSigned, kUnsigned, kFloat, kDouble, kText };

  template <class T>
  static constexpr Kind kind_of() {
    if constexpr (std::same_as<T, bool>)
      return Kind::kBool;
    else if constexpr (std::same_as<T, char>)
      return Kind::kChar;
    else if constexpr (std::signed_integral<T>)
      return Kind::kSigned;
    else if constexpr (std::unsigned_integral<T>)
      return Kind::kUnsigned;
    else if constexpr (std::same_as<T, float>)
      return Kind::kFloat;
    else if constexpr (std::same_as<T, double>)
      return Kind::kDouble;
    else
      return Kind::kText;
  }
  template <class T>
  explicit FormatArgument(const T& value) : kind(kind_of<T>()) {
    if constexpr (kind_of<T>() == Kind::kText)
      text = std::string_view(value);
    else if constexpr (kind_of<T>() == Kind::kFloat || kind_of<T>() == Kind::kDouble)
      real = value;
    else
      whole = static_cast<std::uint64_t>(value);
  }

  Kind kind;
  union {
    std::uint64_t whole;
    double real;
    std::string_view text;
  };
};

/// Throws, which does not compile, unless `text` has a field for each of the kinds, numbered or in order, and
/// the kind suits the field.
constexpr void check_format(std::string_view text, std::span<const FormatArgument::Kind> kinds);

/// A format string for arguments of types T. One that does not fit them does not compile.
template <class... T>
struct FormatText {
  template <std::convertible_to<std::string_view> S>
  consteval FormatText(const S& s) : text(s) {  // NOLINT: implicit, a string literal is meant
    constexpr FormatArgument::Kind kKinds[] = {FormatArgument::kind_of<T>()..., FormatArgument::Kind::kBool};
    check_format(text, std::span(kKinds, sizeof...(T)));
  }
  std::string_view text;
};

std::string format_arguments(std::string_view text, std::span<const FormatArgument> arguments);

/// The one way to format text: {fmt}'s format strings. {fmt} itself stays out of this header: it would be
/// compiled anew in nearly every file. An object, so that std::format is not looked up beside it for
/// arguments of std.
struct Format {
  template <class... T>
  std::string operator()(FormatText<std::type_identity_t<std::decay_t<const T&>>...> text,
                         const T&... arguments) const {
    if constexpr (sizeof...(T) == 0) {
      return format_arguments(text.text, {});
    } else {
      const FormatArgument list[] = {FormatArgument(arguments)...};
      return format_arguments(text.text, list);
    }
  }
};
inline constexpr Format format;

constexpr void check_format(std::string_view text, std::span<const FormatArgument::Kind> kinds) {
  using Kind = FormatArgument::Kind;
  std::size_t used = 0;
  const auto kind_at = [&](std::size_t number) {
    used = number + 1 > used ? number + 1 : used;
    return number < kinds.size() ? kinds[number] : throw "a field without an argument";
  };
  const auto is_whole = [](Kind kind) { return kind == Kind::kSigned || kind == Kind::kUnsigned; };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool doubled = i + 1 < text.size() && text[i + 1] == text[i];
    if (text[i] == '}' && !doubled) throw "a } without its {";
    if (text[i] != '{' || doubled) {
      i += text[i] == '{' || text[i] == '}' ? 1 : 0;
      continue;
    }
    const char digit = text[++i];
    const Kind kind = kind_at(digit >= '0' && digit <= '9' ? static_cast<std::size_t>(digit - '0') : used);
    for (; i < text.size() && text[i] != '}'; ++i)
      if (text[i] == '{') {  // a width or precision of its own
        if (!is_whole(kind_at(used))) throw "a width that is no whole number";
        i = std::min(text.find('}', i), text.size());
      }
    if (i >= text.size()) throw "a { without its }";
    const char form = text[i - 1];
    const bool real = kind == Kind::kFloat || kind == Kind::kDouble;
    if ((form == 'f' || form == 'e' || form == 'g') && !real) throw "a number with a point is needed";
    if ((form == 'd' || form == 'x' || form == 'X') && !is_whole(kind)) throw "a whole number is needed";
  }
  if (used != kinds.size()) throw "an argument without a field";
}

}  // namespace stoa
