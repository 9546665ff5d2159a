// Text models as a user has them: trained, asked, exported, fine-tuned, handed in.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <sstream>

#include "stoa/base/text.h"
#include "stoa/data/text/byte_level.h"
#include "support/click_files.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kSentences = {"the cat sat on the mat .", "a dog lay by my door .",
                                             "one bird sang in some tree ."};

constexpr const char* kModelAndTraining = R"(
[model]
name = "text_transformer"
dim = 32
depth = 1
heads = 2
mlp_dim = 64
positions = 32
dropout = 0.0
attention_dropout = 0.0
init_std = 0.1
[optimizer]
lr = 5e-3
[schedule]
name = "linear"
[train]
batch_size = 16
workers = 0
[runtime]
threads = 1
precision = "fp32"
)";

/// The three sentences again and again, each a document.
std::string corpus() {
  std::string text;
  for (int i = 0; i < 60; ++i) text += kSentences[static_cast<std::size_t>(i % 3)] + "\n\n";
  return text;
}

/// A vocab.txt of the words of the sentences.
std::string word_list() {
  std::string lines = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  std::istringstream all(join(kSentences, " "));
  std::set<std::string> known;
  for (std::string word; all >> word;)
    if (known.insert(word).second) lines += word + "\n";
  return lines;
}

/// GPT-2's form of a vocabulary: all bytes, two merges, the end of text.
void write_byte_pairs(const fs::path& folder) {
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[byte_level::written(std::string(1, static_cast<char>(byte)))] = byte;
  const std::string space = byte_level::written(" ");
  for (const std::string& token : {std::string("at"), space + "t", std::string("<|endoftext|>")})
    vocabulary[token] = vocabulary.size();
  write_text(folder / "vocab.json", vocabulary.dump());
  write_text(folder / "merges.txt", "#version: 0.2\na t\n" + space + " t\n");
}

/// Rows of RTE with `label`s that the sentences determine, or none.
std::string entailment_rows(bool labels) {
  std::string rows = std::string("index\tsentence1\tsentence2") + (labels ? "\tlabel\n" : "\n");
  for (int i = 0; i < 9; ++i) {
    const auto first = static_cast<std::size_t>(i % 3), second = static_cast<std::size_t>(i / 3);
    rows += format("{}\t{}\t{}", i, kSentences[first], kSentences[second]);
    rows += !labels ? "\n" : first == second ? "\tentailment\n" : "\tnot_entailment\n";
  }
  return rows;
}

/// One folder for all tests of this file, with a masked and a causal run in it.
class TextRuns : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempDir>();
    const auto& folder = *folder_;
    write_text(folder / "data/text.txt", corpus());
    write_text(folder / "data/vocab.txt", word_list());
    write_byte_pairs(folder / "data/pairs");
    for (const char* file : {"train", "dev"})
      write_text(folder / "data/glue/RTE" / (file + std::string(".tsv")), entailment_rows(true));
    write_text(folder / "data/glue/RTE/test.tsv", entailment_rows(false));
    const std::string text = "[data]\ntrain = [\"data/text.txt\"]\neval = [\"data/text.txt\"]\nlength = 24\n";
    write_text(folder / "masked.toml", "[task]\nname = \"masked_text\"\n" + text +
                                           "tokenizer = \"data/vocab.txt\"\nmasking.share = 0.3\n" +
                                           kModelAndTraining);
    write_text(folder / "causal.toml", "[task]\nname = \"causal_text\"\ngenerate.tokens = 12\n" + text +
                                           "tokenizer = \"data/pairs\"\n" + kModelAndTraining);
    write_text(folder / "rte.toml",
               "[task]\nname = \"text_classification\"\n[data]\nformat = \"rte\"\npath = "
               "\"data/glue\"\nlength = 32\n" +
                   std::string(kModelAndTraining));
    masked_ = run({"train", "masked.toml", "--out", "masked", "--set", "train.steps=150", "--json"});
    causal_ = run({"train", "causal.toml", "--out", "causal", "--set", "train.steps=400", "--set",
                   "model.preset=gpt2", "--json"});
  }
  static void TearDownTestSuite() { folder_.reset(); }
  void SetUp() override {
    ASSERT_EQ(masked_.exit_code, 0) << masked_.errors;
    ASSERT_EQ(causal_.exit_code, 0) << causal_.errors;
  }

  static Ended run(const std::vector<std::string>& arguments) { return run_stoa(arguments, folder_->path()); }
  static std::string output(const std::vector<std::string>& arguments) {
    const Ended ended = run(arguments);
    EXPECT_EQ(ended.exit_code, 0) << ended.errors;
    return ended.output;
  }
  static Json answers(const std::vector<std::string>& arguments) {
    const Ended ended = run(arguments);
    EXPECT_EQ(ended.exit_code, 0) << ended.errors;
    const Json json = json_of(ended);
    return json.is_object() ? json.at("predictions").at(0).at("answers") : Json::array();
  }
  /// The one line with which a command is refused.
  static std::string refused(const std::vector<std::string>& arguments, int exit_code) {
    const Ended ended = run(arguments);
    EXPECT_EQ(ended.exit_code, exit_code) << ended.errors;
    EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
    EXPECT_EQ(ended.output, "");
    return ended.errors;
  }
  /// The folder in Hugging Face's form of a run.
  static std::string pretrained(const std::string& name) {
    const std::string out = name + "-hf";
    if (!fs::exists(*folder_ / out))
      output({"export", name, "--out", out, "--form", "hugging_face", "--quiet"});
    return out;
  }
  /// What evaluation says of the weights in `pretrained` before anything is learned.
  static Json metrics_of(const std::string& recipe, const std::string& pretrained) {
    const Ended ended =
        run({"train", recipe, "--out", "from-" + pretrained, "--set", "model.weights=" + pretrained, "--set",
             "optimizer.lr=0", "--set", "train.steps=1", "--set", "data.tokenizer=", "--json"});
    EXPECT_EQ(ended.exit_code, 0) << ended.errors;
    return ended.exit_code == 0 ? json_of(ended).at("metrics") : Json();
  }

  static inline std::unique_ptr<TempDir> folder_;
  static inline Ended masked_, causal_;
};

TEST_F(TextRuns, AMaskedModelFillsWhatIsMissingLineByLine) {
  write_text(*folder_ / "lines.txt", "the cat sat on the [MASK] .\none bird [MASK] in some [MASK] .\n");
  EXPECT_EQ(output({"predict", "masked", "lines.txt"}),
            "the cat sat on the mat.\none bird sang in some tree.\n");
  const Json found = answers({"predict", "masked", "lines.txt", "--json", "--set", "task.top=3"});
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].at("text"), "the cat sat on the mat.");
  ASSERT_EQ(found[1].at("masks").size(), 2U);
  const Json& places = found[1].at("masks")[1];
  ASSERT_EQ(places.size(), 3U);
  EXPECT_EQ(places[0].at("token"), "tree");
  EXPECT_GT(places[0].at("probability"), 0.5);
}

TEST_F(TextRuns, ACausalModelContinuesEachLineOnItsLine) {
  write_text(*folder_ / "begun.txt", "the cat sat\none bird\n");
  const std::vector<std::string> greedy = {"predict", "causal", "begun.txt", "--set",
                                           "task.generate.temperature=0"};
  const std::string text = output(greedy);
  EXPECT_EQ(line_count(text), 2) << text;
  EXPECT_TRUE(text.starts_with("the cat sat on the m")) << text;
  STOA_EXPECT_CONTAINS(text, "\none bird sang in");
  auto in_json = greedy;
  in_json.push_back("--json");
  const Json found = answers(in_json);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].at("text"), "the cat sat");
  EXPECT_TRUE(found[0].at("continuation").get<std::string>().starts_with(" on the m"));
}

TEST_F(TextRuns, HowATextIsContinuedIsSetOnTheCommandLine) {
  const auto continued = [&](const std::vector<std::string>& set) {
    std::vector<std::string> command = {"predict", "causal", "the"};
    for (const auto& item : set) command.insert(command.end(), {"--set", "task.generate." + item});
    return output(command);
  };
  const std::string hot = continued({"temperature=9", "seed=1"});
  EXPECT_EQ(hot, continued({"temperature=9", "seed=1"}));
  EXPECT_NE(hot, continued({"temperature=9", "seed=2"}));
  const std::string likeliest = continued({"temperature=0", "seed=1"});
  EXPECT_EQ(likeliest, continued({"temperature=9", "top_k=1", "seed=2"}));
  const std::string one_token = continued({"temperature=0", "tokens=1"});
  EXPECT_LT(one_token.size(), likeliest.size());
  EXPECT_TRUE(likeliest.starts_with(one_token.substr(0, one_token.size() - 1)));
}

TEST_F(TextRuns, LinesComeThroughAPipe) {
  for (const auto& [pipe, answer] : std::map<std::string, std::string>{
           {"printf 'the [MASK] sat on the mat .\\n' | exec " STOA_PROGRAM " predict masked -",
            "the cat sat on the mat.\n"},
           {"printf 'a dog\\n' | exec " STOA_PROGRAM
            " predict causal - --set task.generate.temperature=0 --set task.generate.tokens=4",
            "a dog lay\n"}}) {
    const Ended ended = RunningProgram({"sh", "-c", pipe}, folder_->path()).wait();
    ASSERT_EQ(ended.exit_code, 0) << ended.errors;
    EXPECT_EQ(ended.output, answer);
  }
}

TEST_F(TextRuns, HuggingFacesFormIsReadBackToTheSameLoss) {
  for (const auto& [name, trained] :
       {std::pair<std::string, Ended*>{"masked", &masked_}, {"causal", &causal_}}) {
    const std::string folder = pretrained(name);
    for (const char* file : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
      EXPECT_TRUE(fs::exists(*folder_ / folder / file)) << file;
    EXPECT_EQ(metrics_of(name + ".toml", folder), json_of(*trained).at("metrics")) << name;
  }
}

TEST_F(TextRuns, AnExportAnswersWithoutTheDataItWasMadeFrom) {
  const std::string before = output({"predict", "masked", "the [MASK] sat on the mat ."}),
                    begun = output({"predict", "causal", "one bird"});
  const Ended made = run({"export", "masked", "--out", "served", "--json"});
  ASSERT_EQ(made.exit_code, 0) << made.errors;
  EXPECT_EQ(json_of(made).at("after"), json_of(masked_).at("metrics"));
  output({"export", "causal", "--out", "served-causal", "--no-measure"});
  EXPECT_TRUE(fs::exists(*folder_ / "served/files/tokenizer/vocab.txt"));

  const TempDir elsewhere;
  for (const std::string name : {"served", "served-causal"}) fs::rename(*folder_ / name, elsewhere / name);
  fs::rename(*folder_ / "data", *folder_ / "gone");
  const Ended filled = run_stoa({"predict", "served", "the [MASK] sat on the mat ."}, elsewhere.path()),
              continued = run_stoa({"predict", "served-causal", "one bird"}, elsewhere.path());
  fs::rename(*folder_ / "gone", *folder_ / "data");
  EXPECT_EQ(filled.output, before) << filled.errors;
  EXPECT_EQ(continued.output, begun) << continued.errors;
  const Ended trained = run_stoa({"train", "--resume", "served"}, elsewhere.path());
  EXPECT_EQ(trained.exit_code, 2);
  EXPECT_EQ(line_count(trained.errors), 1);
  STOA_EXPECT_CONTAINS(trained.errors, "served was exported for use and cannot be trained");
}

TEST_F(TextRuns, APretrainedModelLearnsRteAndHandsItsAnswersIn) {
  for (const std::string name : {"masked", "causal"}) {
    const std::string rte = "rte-" + name;
    const Ended trained = run({"train", "rte.toml", "--out", rte, "--set",
                               "model.weights=" + pretrained(name), "--set", "train.steps=4", "--json"});
    ASSERT_EQ(trained.exit_code, 0) << trained.errors;
    STOA_EXPECT_CONTAINS(trained.errors, name == "masked"
                                             ? "newly drawn: pooler.weight, pooler.bias, class_head"
                                             : "newly drawn: score");
    const Ended measured = run({"eval", rte, "--save-predictions", "handed/" + name, "--json"});
    ASSERT_EQ(measured.exit_code, 0) << measured.errors;
    EXPECT_EQ(json_of(measured).at("metrics"), json_of(trained).at("metrics"));
    STOA_EXPECT_CONTAINS(measured.errors, "wrote handed/" + name + "/RTE.tsv");

    // the same answers as predict gives for the test file
    std::string wanted = "index\tprediction\n";
    int row = 0;
    for (const auto& answer : answers({"predict", rte, "data/glue/RTE/test.tsv", "--json"}))
      wanted += format("{}\t{}\n", row++, answer.at("class").get<std::string>());
    EXPECT_EQ(row, 9);
    EXPECT_EQ(read_file(*folder_ / "handed" / name / "RTE.tsv"), wanted);
  }
}

TEST_F(TextRuns, AGptClassifierIsExportedAndReadBack) {
  const Ended trained =
      run({"train", "rte.toml", "--out", "gpt", "--set", "model.preset=gpt2", "--set",
           "data.tokenizer=data/pairs", "--set", "data.length=32", "--set", "train.steps=3", "--json"});
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  EXPECT_EQ(metrics_of("rte.toml", pretrained("gpt")), json_of(trained).at("metrics"));
}

TEST_F(TextRuns, WhatCannotBeSetIsRefusedInOneLine) {
  const auto set = [](const std::string& run, const std::string& assignment) {
    return std::vector<std::string>{"predict", run, "the [MASK]", "--set", assignment};
  };
  STOA_EXPECT_CONTAINS(refused(set("masked", "model.dim=3"), 2), "only keys of [task] can be set here");
  STOA_EXPECT_CONTAINS(refused(set("masked", "task.top=0"), 2), "`task.top` is 0; it must be at least 1");
  STOA_EXPECT_CONTAINS(refused(set("causal", "task.generate.temprature=0"), 2),
                       "`task.generate.temperature`");
  STOA_EXPECT_CONTAINS(refused(set("causal", "task.generate.top_p=2"), 2), "`task.generate.top_p` is 2");
}

TEST_F(TextRuns, InputsThatDoNotFitAreRefusedInOneLine) {
  STOA_EXPECT_CONTAINS(refused({"predict", "masked", "nothing is missing"}, 3), "there is nothing to fill");
  STOA_EXPECT_CONTAINS(refused({"predict", "masked", "absent.txt"}, 3), "absent.txt: there is no such file");
  STOA_EXPECT_CONTAINS(
      refused(
          {"train", "rte.toml", "--out", "none", "--set", "model.weights=nowhere", "--set", "train.steps=1"},
          3),
      "nowhere does not exist; correct `data.tokenizer` or, where that is empty, `model.weights`");
}

TEST_F(TextRuns, FormsThatThereAreNotAreRefusedInOneLine) {
  STOA_EXPECT_CONTAINS(refused({"export", "masked", "--out", "none", "--form", "onnx"}, 2), "onnx");
  STOA_EXPECT_CONTAINS(refused({"export", "masked", "--out", "causal", "--form", "hugging_face"}, 2),
                       "causal exists already");
  STOA_EXPECT_CONTAINS(refused({"export", "masked", "--out", "none", "--tables", "int8"}, 2), "--tables");
  output({"train", "masked.toml", "--out", "megatron", "--set", "model.preset=megatron", "--set",
          "train.steps=1", "--quiet"});
  STOA_EXPECT_CONTAINS(refused({"export", "megatron", "--out", "none", "--form", "hugging_face"}, 2),
                       "no form that Hugging Face's transformers know");
  EXPECT_FALSE(fs::exists(*folder_ / "none"));
  EXPECT_FALSE(fs::exists(*folder_ / ".none.part"));
}

}  // namespace
}  // namespace stoa::test
