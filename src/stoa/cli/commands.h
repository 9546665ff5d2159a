#pragma once

#include "stoa/cli/program.h"

// One function a command; each adds itself to the program and lives in the file of its name.
namespace stoa::cli {

void add_train(Program& program);
void add_eval(Program& program);
void add_predict(Program& program);
void add_info(Program& program);
void add_report(Program& program);
void add_data(Program& program);
void add_experiment(Program& program);
void add_doctor(Program& program);
void add_export(Program& program);
void add_launch(Program& program);
void add_plan(Program& program);
void add_options(Program& program);
void add_completion(Program& program);

}  // namespace stoa::cli
