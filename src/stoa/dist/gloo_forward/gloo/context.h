// LibTorch brings the compiled Gloo but not its headers, which ProcessGroupGloo.hpp asks for. These five
// declare as much of Gloo as that header names; it holds all of it by pointer, so nothing depends on what the
// classes really contain. Only dist/gloo.cpp sees this folder, and it calls nothing of Gloo's.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "gloo/transport/device.h"

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
