#include "stoa/dist/last_words.h"

#include <cxxabi.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <typeinfo>
#include <vector>

#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/dist/errors.h"

namespace stoa::dist {
namespace {

std::atomic<bool> met_others{false};

struct Registry {
  std::mutex mutex;
  std::list<std::string> under_way;  // the oldest first
  std::string who;
  std::terminate_handler before = nullptr;
};

/// Never destroyed: Gloo's threads may outlive the objects of main().
Registry& registry() {
  static auto* const one = new Registry;
  return *one;
}

/// Of what is under way the first three; `who` where nothing is. The thread that ends may hold the lock
/// itself.
std::string doing() {
  constexpr int kTries = 100;
  constexpr std::size_t kShown = 3;
  auto& all = registry();
  std::unique_lock lock(all.mutex, std::defer_lock);
  for (int i = 0; i < kTries && !lock.try_lock(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!lock.owns_lock()) return "an operation between ranks";
  if (all.under_way.empty()) return all.who;
  std::vector<std::string> names;
  for (const auto& what : all.under_way) {
    if (names.size() == kShown) break;
    names.push_back(what);
  }
  return join(names, " or ");
}

bool is_of_gloo(const std::type_info* type) {
  return type != nullptr && std::string_view(type->name()).find("4gloo") != std::string_view::npos;
}

/// "20 vs 12" in Gloo's words: bytes that came and bytes that were awaited.
bool is_of_sizes(std::string_view message) {
  return message.find("nbytes") != std::string_view::npos;
}

std::string last_words(const std::exception& error) {
  if (is_of_sizes(error.what()))
    return format(
        "{} failed: another rank sent a tensor of another size; start every rank with the same recipe, data "
        "and program",
        doing());
  return explain_failure(doing(), error, 0).what();
}

[[noreturn]] void on_terminate() {
  if (const auto error = std::current_exception(); error && is_of_gloo(abi::__cxa_current_exception_type())) {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& caught) {
      std::fprintf(stderr, "stoa: %s\n", last_words(caught).c_str());
      std::_Exit(1);  // other threads still run, so nothing may be destroyed
    } catch (...) {
    }
  }
  if (const auto before = registry().before) before();
  std::abort();
}

}  // namespace

UnderWay::UnderWay(std::string what) {
  auto& all = registry();
  const std::lock_guard lock(all.mutex);
  place_ = all.under_way.insert(all.under_way.end(), std::move(what));
}

UnderWay::~UnderWay() {
  auto& all = registry();
  const std::lock_guard lock(all.mutex);
  all.under_way.erase(place_);
}

void explain_errors_of_gloo(const std::string& who) {
  auto& all = registry();
  const std::lock_guard lock(all.mutex);
  all.who = who;
  const auto before = std::set_terminate(on_terminate);
  if (before != on_terminate) all.before = before;
}

bool has_met_others() {
  return met_others;
}

void note_meeting() {
  met_others = true;
}

}  // namespace stoa::dist
