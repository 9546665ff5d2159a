#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

// Tables that are only read. Internal to nn/embedding_*.cpp.
namespace stoa::nn {

struct ServedTables;

/// Their tensors by name, as state() gives them.
std::map<std::string, at::Tensor> served_state(const ServedTables& served);

/// Whether a stored state is one of tables that are only read.
bool is_served(const std::map<std::string, at::Tensor>& stored);

}  // namespace stoa::nn
