#pragma once

#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/train/plan.h"

// A plan for people and for programs, and the tables of the paper.
namespace stoa::cli {

/// "12.5 ms", "3.2 s", "2:05".
std::string seconds_text(double seconds);

/// One line a split, at most `most` of them (0: all); the first split by its parts where it is the only one.
std::string plan_text(const std::vector<PlannedSplit>& splits, std::size_t most);
Json plan_json(const std::vector<PlannedSplit>& splits);

/// The command that trains with a split, behind `stoa`.
std::string command_of(const std::string& recipe, const PlanModel& model, const Split& split);

/// Numbers that one block holds on each of 1 to 1024 ranks, by the paper's tables 1 to 3 (`attention`,
/// `mlp`), or the longest sequence whose attention block fits into `memory` bytes (`length`).
struct BlockTable {
  std::string text;
  Json json;
};
BlockTable block_table(const std::string& kind, const dist::BlockShape& shape, double memory);

}  // namespace stoa::cli
