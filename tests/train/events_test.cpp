#include "stoa/train/events.h"

#include <gtest/gtest.h>

#include <cstring>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/train/tfevents.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;

std::uint32_t masked(const std::string& bytes) {
  return masked_crc32c({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

/// The payloads of TFRecord frames, checksums verified.
std::vector<std::string> payloads(const std::string& content) {
  std::vector<std::string> found;
  for (std::size_t at = 0; at < content.size();) {
    std::uint64_t size = 0;
    std::uint32_t crc_of_size = 0, crc = 0;
    std::memcpy(&size, content.data() + at, 8);
    std::memcpy(&crc_of_size, content.data() + at + 8, 4);
    found.push_back(content.substr(at + 12, size));
    std::memcpy(&crc, content.data() + at + 12 + size, 4);
    EXPECT_EQ(crc_of_size, masked(content.substr(at, 8)));
    EXPECT_EQ(crc, masked(found.back()));
    at += 12 + size + 4;
  }
  return found;
}

std::string line(const fs::path& run, std::size_t number) {
  return read_events(run).at(number).dump();
}

TEST(TfEvents, AnEventIsEncodedAsItsProtocolSays) {
  using namespace std::string_literals;
  const std::string expected =
      "\x09\x00\x00\x00\x00\x00\x00\xf8\x3f"s  // 1: wall time, 1.5
      "\x10\xac\x02"s                          // 2: step, 300
      "\x2a\x0c"s                              // 5: summary of 12 bytes
      "\x0a\x0a"s                              //   1: value of 10 bytes
      "\x0a\x03"s
      "a/b"s                    //     1: tag
      "\x15\x00\x00\x00\x40"s;  //     2: simple value, 2
  EXPECT_EQ(payloads(tfevents_scalars(1.5, 300, {{"a/b", 2.0F}})), std::vector<std::string>{expected});
}

TEST(TfEvents, TheFirstEventNamesTheVersion) {
  STOA_EXPECT_CONTAINS(payloads(tfevents_header(0)).at(0),
                       "\x1a\x0d"
                       "brain.Event:2");
}

TEST(TfEvents, FramesOfLaterStepsAreToldApart) {
  const std::string head = tfevents_header(1), ten = tfevents_scalars(1, 10, {{"a", 1.0F}});
  const std::string all = head + ten + tfevents_scalars(1, 200, {{"a", 1.0F}});
  EXPECT_EQ(tfevents_up_to(all, 199), head.size() + ten.size());
  EXPECT_EQ(tfevents_up_to(all, 200), all.size());
  EXPECT_EQ(tfevents_up_to(all, 9), head.size());
}

TEST(TfEvents, ATornLastFrameDoesNotCount) {
  const std::string head = tfevents_header(1), all = head + tfevents_scalars(1, 10, {{"a", 1.0F}});
  for (std::size_t size = head.size(); size < all.size(); ++size)
    EXPECT_EQ(tfevents_up_to(all.substr(0, size), 10), head.size()) << size;
}

TEST(EventLog, WritesOneObjectALine) {
  const test::TempDir run;
  EventLog log(run.path(), 0);
  log.write("train", 10, {{"loss", 0.5}, {"statistics", {{"load", {0.5, 0.5}}}}});
  log.write("eval", 10, {{"accuracy", 0.25}});
  EXPECT_EQ(read_file(run / "metrics.jsonl"),
            "{\"step\":10,\"kind\":\"train\",\"loss\":0.5,\"statistics\":{\"load\":[0.5,0.5]}}\n"
            "{\"step\":10,\"kind\":\"eval\",\"accuracy\":0.25}\n");
}

TEST(EventLog, ScalarsGoToTensorBoardUnderTheirKind) {
  const test::TempDir run;
  EventLog log(run.path(), 0);
  log.write("train", 10, {{"loss", 0.5}, {"statistics", {{"load", {0.5, 0.5}}}}});
  const auto events = payloads(read_file(run / "events.tfevents"));
  ASSERT_EQ(events.size(), 2);
  STOA_EXPECT_CONTAINS(events[1], "train/loss");
  EXPECT_EQ(events[1].find("statistics"), std::string::npos);
}

/// A log of the steps 10, 20 and 30.
struct Log {
  test::TempDir run;
  Log() {
    EventLog log(run.path(), 0);
    for (const std::int64_t step : {10, 20, 30})
      log.write("train", step, {{"loss", 1.0 / static_cast<double>(step)}});
  }
  void append(const std::string& file, const std::string& text) {
    write_file_atomically(run / file, read_file(run / file) + text);
  }
};

TEST(EventLog, ResumedItDropsTheLinesOfLaterSteps) {
  Log log;
  const std::string before = read_file(log.run / "metrics.jsonl");
  EventLog resumed(log.run.path(), 20);
  EXPECT_EQ(read_events(log.run.path()).size(), 2);
  resumed.write("train", 30, {{"loss", 1.0 / 30}});
  EXPECT_EQ(read_file(log.run / "metrics.jsonl"), before);
}

TEST(EventLog, ResumedItDropsTheEventsOfLaterSteps) {
  const Log log;
  const EventLog resumed(log.run.path(), 20);
  EXPECT_EQ(payloads(read_file(log.run / "events.tfevents")).size(), 3);  // the version and two steps
}

TEST(EventLog, ResumedItRemovesTornRecords) {
  Log log;
  log.append("metrics.jsonl", "{\"step\":31,\"ki");
  log.append("events.tfevents", "\x20");
  EventLog resumed(log.run.path(), 30);
  resumed.write("train", 40, {{"loss", 0.5}});
  EXPECT_EQ(line(log.run.path(), 3), R"({"step":40,"kind":"train","loss":0.5})");
  EXPECT_EQ(payloads(read_file(log.run / "events.tfevents")).size(), 5);
}

TEST(EventLog, StartedAnewItIsEmpty) {
  const Log log;
  const EventLog anew(log.run.path(), 0);
  EXPECT_TRUE(read_events(log.run.path()).empty());
  EXPECT_EQ(payloads(read_file(log.run / "events.tfevents")).size(), 1);
}

TEST(EventLog, AFolderThatIsGoneIsAnIoError) {
  test::TempDir run;
  EventLog log(run / ".", 0);
  fs::remove_all(run.path());
  STOA_EXPECT_CONTAINS(test::thrown<IoError>([&] { log.write("train", 1, Json::object()); }),
                       "metrics.jsonl");
}

TEST(ReadEvents, PassesOverATornLastLine) {
  Log log;
  log.append("metrics.jsonl", "{\"step\":31,\"ki");
  EXPECT_EQ(read_events(log.run.path()).size(), 3);
}

TEST(ReadEvents, NamesTheLineThatWasAltered) {
  Log log;
  log.append("metrics.jsonl", "nonsense\n{}\n");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { read_events(log.run.path()); }),
                       "metrics.jsonl:4: not a JSON object");
}

TEST(ReadEvents, NoFileIsNoEvents) {
  const test::TempDir run;
  EXPECT_TRUE(read_events(run.path()).empty());
}

}  // namespace
}  // namespace stoa
