// Writes small valid files of every format, one folder a fuzz target: what the fuzzer starts from.
#include <cstdio>

#include "stoa/base/files.h"
#include "stoa/data/tabular/parse.h"
#include "stoa/data/tabular/row_file.h"
#include "stoa/data/tabular/vocabulary.h"
#include "stoa/data/text/token_file.h"
#include "support/image_files.h"
#include "support/temp_dir.h"

namespace {

using namespace stoa::test;

void save_all(const std::filesystem::path& folder, const std::vector<Bytes>& files) {
  for (std::size_t i = 0; i < files.size(); ++i) save(folder / ("seed-" + std::to_string(i)), files[i]);
}

std::vector<Bytes> images() {
  const Bytes noise = [] {
    Bytes bytes(16 * 16 * 4);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 31 % 251);
    return bytes;
  }();
  const PngForm palette{PNG_COLOR_TYPE_PALETTE, 8, true, {{1, 2, 3}, {4, 5, 6}}, {0, 128}};
  return {jpeg(16, 16, noise, {.quality = 50}),
          jpeg(16, 16, noise, {.progressive = true, .quality = 50}),
          jpeg(9, 7, noise, {JCS_GRAYSCALE, JCS_GRAYSCALE}),
          jpeg(8, 8, noise, {JCS_CMYK, JCS_CMYK}),
          jpeg(8, 8, noise, {JCS_CMYK, JCS_YCCK, true}),
          png(8, 8, cut(noise, 192)),
          png(8, 8, cut(noise, 512), {PNG_COLOR_TYPE_RGB_ALPHA, 16}),
          png(4, 4, cut(noise, 32), {PNG_COLOR_TYPE_GRAY_ALPHA, 8}),
          png(5, 8, cut(noise, 5), {PNG_COLOR_TYPE_GRAY, 1, true}),
          png(2, 2, {0, 1, 1, 0}, palette)};
}

std::vector<Bytes> tars() {
  Bytes long_name = tar_member("././@LongLink", text(std::string(200, 'n')), 'L');
  append(long_name, tar_member("short", text("x")));
  long_name.resize(long_name.size() + 1024);
  Bytes pax = tar_member("pax", text("16 path=a/b.jpg\n9 size=2\n"), 'x');
  append(pax, tar_member("short", text("xy")));
  pax.resize(pax.size() + 1024);
  return {tar({{"train/cat/1.jpg", text("x")}, {"train/dog/2.jpg", text(std::string(600, 'y'))}}), long_name,
          pax};
}

std::vector<Bytes> tf_records() {
  Bytes two = tf_record(image_example(plain_png(2, 3), 7));
  append(two, tf_record(image_example({}, -1)));
  return {two, image_example(plain_png(2, 3), 1000), tf_record({})};
}

Bytes safetensors(const std::string& header, std::size_t data) {
  Bytes bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<std::uint8_t>(header.size() >> (8 * i)));
  append(bytes, text(header));
  bytes.resize(bytes.size() + data);
  return bytes;
}

std::vector<Bytes> headers() {
  const std::string two =
      R"({"__metadata__":{"step":"7"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}})";
  return {safetensors(two, 26), safetensors("{}", 0),
          safetensors(R"({"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0)};
}

std::vector<Bytes> recipes() {
  return {
      text(
          "system = \"wide_net\"\n[model]\ndepth = 12\nexperts = 4\ncapacity = 1.2\nflags = [true, false]\n"),
      text("[data]\npath = '/data'\nmean = [0.1, 0.2e-3, inf, nan]\naugment.mixup = 0.5\n[data.augment]\nx = "
           "1\n"),
      text("a = \"\\u00e9\\n\\t\\\"\"\n\"quoted key\" = 1979-05-27T07:32:00Z\nb = 0x1f\nc = {d = [[1], [2, "
           "3]]}\n"),
      text("[[runs]]\nseed = 1\n[[runs]]\nseed = 2\nname = \"\"\"two\nlines\"\"\"\n"),
      text("data.path=/tmp/x"),
      text("train.lr=1e-3")};
}

std::vector<Bytes> click_texts() {
  std::string criteo = "1";
  for (int i = 0; i < 13; ++i) criteo += "\t" + std::to_string(i * i - 3);
  for (int i = 0; i < 26; ++i) criteo += i % 5 == 0 ? "\t" : "\t05db91a4";
  return {text(criteo + "\n"), text("1,ab,0f,7,2.5,x\r\n0,,,,,\n"),
          text("1,\"a \"\"b\"\",c\",00ff00ff,14102100,-1e3,\n"), text("n,t,h,i\n0.5,ab,0f,7\n"),
          text("{\"t\": \"ab\", \"i\": 7, \"n\": null}\n{\"ids\": [1, 1, 1], \"numerics\": [0.5]}\n")};
}

Bytes click_rows(std::size_t rows) {
  stoa::RowColumns columns{{std::vector<std::uint32_t>(rows, 3), std::vector<std::uint32_t>(rows, 999)},
                           {std::vector<float>(rows, 0.5f)},
                           std::vector<std::uint8_t>(rows, 1)};
  const TempDir folder;
  stoa::write_row_file(folder / "rows.bin", columns, 1);
  return text(stoa::read_file(folder / "rows.bin"));
}

std::vector<Bytes> click_files() {
  stoa::KeyRun texts, digits;
  for (const std::string_view value : {"a", "bc", ""}) texts.append(stoa::key_of_text(value), 2, &value);
  for (std::uint64_t key = 0; key < 9; ++key) digits.append(key << 4 | 8, 1, nullptr);
  return {click_rows(3), click_rows(0),
          text(stoa::Vocabulary::build(stoa::CellType::kText, false, texts, 1, nullptr)),
          text(stoa::Vocabulary::build(stoa::CellType::kHex, true, digits, 1, nullptr))};
}

/// A pair of index and tokens, behind the number of the index's bytes.
Bytes token_pair(stoa::TokenType type, const std::vector<std::int32_t>& sizes,
                 const std::vector<std::int64_t>& bounds, const std::vector<std::int32_t>& ids) {
  const std::string index = stoa::token_index(type, sizes, bounds);
  Bytes pair = {static_cast<std::uint8_t>(index.size() % 256), static_cast<std::uint8_t>(index.size() / 256)};
  append(pair, text(index));
  append(pair, text(stoa::token_bytes(type, ids)));
  return pair;
}

std::vector<Bytes> token_pairs() {
  using Type = stoa::TokenType;
  const std::vector<std::int32_t> ids = {5, 0, 99, 7, 7, 1};
  std::vector<Bytes> pairs = {token_pair(Type::kI32, {}, {0}, {}),
                              text(stoa::token_index(Type::kU16, std::vector<std::int32_t>{2, 1, 3},
                                                     std::vector<std::int64_t>{0, 1, 3}))};
  for (const Type type : {Type::kU8, Type::kI8, Type::kI16, Type::kI32, Type::kI64, Type::kU16})
    pairs.push_back(token_pair(type, {2, 1, 0, 3}, {0, 2, 2, 4}, ids));
  return pairs;
}

std::vector<Bytes> text_tables() {
  return {text("sentence\tlabel\na \"gem\t1\ndull .\t0\n"),
          text("gj04\t0\t*\tThey drank.\n"),
          text("index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n"),
          text("\xef\xbb\xbfindex\tsentence1\tsentence2\tscore\r\n0\tA\tB\t4.75\r\n"),
          text("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\tHow?\t0\n4\t5\n"),
          text("{\"sentence\": \"a\", \"label\": 1}\n{\"sentence\": \"\\u00e9\", \"label\": \"x\"}\n"),
          text("Who?\tHe.\n{\"question\": \"a\", \"context\": \"b\", \"id\": \"c\"}\n"),
          text("{\"data\":[{\"paragraphs\":[{\"context\":\"\xc3\xa9 one two\",\"qas\":[{\"id\":\"q\","
               "\"question\":\"w\",\"is_impossible\":false,\"answers\":[{\"text\":\"two\",\"answer_start\":6}"
               "]}]}]}"
               "]}")};
}

/// A vocabulary and a text, with a zero byte between.
std::vector<Bytes> with_texts(const std::vector<std::string>& vocabularies) {
  std::vector<Bytes> files;
  for (const std::string& vocabulary : vocabularies)
    for (const char* read :
         {"The caf\xc3\xa9s' [MASK] don't", "  e\xcc\x81\xcc\xa3 \xe4\xb8\xad\xe6\x96\x87\xff<x> 42",
          "\xcd\x84\xe3\x80\xae\xec\xa2\x96\xc4\xb0 a\t\n b's"})
      files.push_back(text(vocabulary + std::string(1, '\0') + read));
  return files;
}

std::vector<Bytes> tokenizer_jsons() {
  const std::string added =
      R"("added_tokens":[{"id":0,"content":"[UNK]","special":true},{"id":4,"content":"<x>","lstrip":true,"rstrip":true,)"
      R"("single_word":true,"normalized":true,"special":false}],)";
  return with_texts(
      {"{" + added +
           R"("normalizer":{"type":"BertNormalizer","lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},)"
           R"("decoder":{"type":"WordPiece"},"model":{"type":"WordPiece","max_input_chars_per_word":9,)"
           R"("vocab":{"[UNK]":0,"the":1,"##s":2,"e":3}}})",
       "{" + added +
           R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true},"model":{"type":"BPE",)"
           R"("unk_token":"[UNK]","fuse_unk":true,"vocab":{"[UNK]":0,"a":1,"b":2,"ab":3},"merges":["a b"]}})"});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_corpus FOLDER\n", stderr);
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  save_all(folder / "idx", {idx({2, 2, 3}, Bytes(12, 5)), idx({4}, {1, 2, 3, 4}), idx({0, 28, 28}, {})});
  save_all(folder / "cifar", {Bytes(3073, 1), Bytes(2 * 3074, 2)});
  save_all(folder / "tar", tars());
  save_all(folder / "tfrecord", tf_records());
  save_all(folder / "image", images());
  save_all(folder / "safetensors", headers());
  save_all(folder / "recipe", recipes());
  save_all(folder / "click_text", click_texts());
  save_all(folder / "click_rows", click_files());
  save_all(folder / "tsv", text_tables());
  save_all(folder / "token_index", token_pairs());
  save_all(folder / "wordpiece", with_texts({"", "[UNK]\n[MASK]\nthe\n##s\ne\n##\xcc\x81\nthe\r\n"}));
  save_all(folder / "bpe", with_texts({"", "#version: 0.2\na b\nb c\n\xc4\xa0 a\nab c\n", "e e\nee ee\n"}));
  save_all(folder / "tokenizer_json", tokenizer_jsons());
}
