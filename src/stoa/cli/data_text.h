#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stoa/cli/program.h"

namespace stoa::cli {

/// The flags of `stoa data prepare text` beyond those it shares with click logs.
struct PrepareTextFlags {
  std::string tokenizer, sentences = "lines", key = "text", broken_utf8 = "replace";
  int threads = 0;
  std::vector<CLI::Option*> options;  ///< of the command line
};

void add_text_flags(CLI::App& command, PrepareTextFlags& flags);

/// Tokenises `inputs` into `out` and prints what was made.
void prepare_text_command(const Program& program, const PrepareTextFlags& flags,
                          const std::vector<std::string>& inputs, const std::string& out, bool overwrite);

/// Prints what a folder of prepared text holds; also as a page, where `page` names one.
void describe_text_command(const Program& program, const std::string& folder, const std::string& page);

}  // namespace stoa::cli
