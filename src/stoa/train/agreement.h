#pragma once

#include "stoa/tensor/runtime.h"
#include "stoa/train/recipe.h"
#include "stoa/train/task.h"
#include "stoa/train/team.h"

// What the processes of a run compare before its first step. Each throws DistributedError on every process,
// naming the ranks that differ; a process alone compares nothing. All processes make the same calls.
namespace stoa {

/// They run one version of this program and of LibTorch, on one kind of device, in one precision: "auto" may
/// come to different ones on different machines.
void agree_on_program(const Team& team, const Runtime& runtime);

/// The training data have equally many samples and the same names, classes and vocabularies (the task's
/// metadata). Where they lie does not matter: absolute paths are left out.
void agree_on_samples(const Team& team, const Task& task);

/// The first training samples, in the order of the recipe's seed, are equal to the bit once they are read,
/// tokenized and augmented. Every process makes the same ones, of all parts of the batch, until they are 4096
/// or take 32 MiB; so a data set of any size takes a second or so. Does not see a difference in samples that
/// come later, in evaluation data, nor in weights that a run starts from.
void agree_on_batches(const Team& team, Task& task, const TrainOptions& options);

}  // namespace stoa
