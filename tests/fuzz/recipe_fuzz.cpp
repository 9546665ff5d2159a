#include <string_view>

#include "fuzz/fuzz.h"
#include "stoa/base/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  stoa::fuzz::refusing([&] {
    const auto config = stoa::Config::from_text(text, "recipe.toml");
    // what is written reads back as the same; compared as text, as nan differs from itself
    const std::string written = stoa::to_toml(config.values());
    std::string again;
    try {
      again = stoa::to_toml(stoa::Config::from_text(written, "written.toml").values());
    } catch (const stoa::Error&) {
    }
    stoa::fuzz::require(again == written);
  });
  stoa::fuzz::refusing([&] {
    auto config = stoa::Config::from_text("steps = 5\n[data]\npath = \"x\"\n", "recipe.toml");
    config.set(text);
    config.where(text);
  });
  return 0;
}
