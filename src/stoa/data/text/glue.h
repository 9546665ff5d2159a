#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "stoa/data/text/labelled_text.h"

namespace stoa {

/// The tasks of the GLUE benchmark (Wang et al. 2019).
enum class GlueTask { kCola, kSst2, kMrpc, kStsb, kQqp, kMnli, kQnli, kRte, kWnli };

/// A file of development or test rows: its name without ".tsv", and what it is called.
struct GlueFile {
  std::string name;  ///< "dev_matched"
  std::string as;    ///< of metrics: "" or "mismatched"; of submissions: "MNLI-m"
};

/// A GLUE task as it is published: files of one folder, tab-separated, nothing quoted.
struct GlueLayout {
  std::string name;     ///< "MNLI": also that of its folder
  TextTableForm form;   ///< of training and development rows, with classes in their order
  TextTableForm tests;  ///< of test rows, which have no label
  std::vector<GlueFile> dev, test;
};

const GlueLayout& glue_layout(GlueTask task);

/// A file of a task: NAME.tsv or NAME.tsv.gz in `folder`, or in the task's own folder below it; MNLI's
/// diagnostic rows also in a folder of their name below or beside it. Throws DataError naming what was looked
/// for.
std::filesystem::path find_glue_file(const std::filesystem::path& folder, const GlueLayout& layout,
                                     const std::string& name);
/// Whether there is one.
bool has_glue_file(const std::filesystem::path& folder, const GlueLayout& layout, const std::string& name);

/// The file that GLUE's server takes: a header, then number of the row and prediction. Predictions are
/// numbers of classes, or values of a regression, which are kept within 0 and 5 (STS-B).
std::string glue_submission(const GlueLayout& layout, std::span<const double> predictions);

}  // namespace stoa
