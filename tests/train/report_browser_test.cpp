// The report in a real browser: headless Chromium lays it out in a wide and in a phone's frame, measures what
// it drew, and takes its picture.
#include <gtest/gtest.h>
#include <png.h>

#include <cstdlib>
#include <set>
#include <sstream>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/train/html.h"
#include "stoa/train/report.h"
#include "support/fake_run.h"
#include "support/html_check.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

// Measures each frame once both are loaded, and leaves the figures in the page as JSON.
constexpr const char* kMeasure = R"js(
const box = e => e.getBoundingClientRect();
const measure = frame => {
  const page = frame.contentDocument, root = page.documentElement;
  const charts = [...page.querySelectorAll('.chart > svg')].filter(e => box(e).width > 0);
  const inside = (e, svg) => box(e).left >= box(svg).left - 2 && box(e).right <= box(svg).right + 2 &&
                             box(e).top >= box(svg).top - 4 && box(e).bottom <= box(svg).bottom + 4;
  return {
    overflow: root.scrollWidth - root.clientWidth,
    height: root.scrollHeight,
    charts: charts.length,
    narrowest: Math.min(...charts.map(e => box(e).width)),
    paths: charts.reduce((n, svg) => n + [...svg.querySelectorAll('path')].filter(p => box(p).width > 20).length, 0),
    outside: charts.reduce((n, svg) => n + [...svg.querySelectorAll('path')].filter(p => !inside(p, svg)).length, 0),
    tick: parseFloat(frame.contentWindow.getComputedStyle(page.querySelector('.chart text')).fontSize),
    labels: [...page.querySelectorAll('.chart .label')].filter(e => box(e).width > 0).length,
    cut: [...page.querySelectorAll('.chart .label')].filter(e => box(e).right > root.clientWidth).length,
    colours: new Set([...page.querySelectorAll('.heat td[style]')]
                 .map(e => frame.contentWindow.getComputedStyle(e).backgroundColor)).size,
    pictures: [...page.images].filter(e => e.naturalWidth === 28 && box(e).width > 40).length,
  };
};
window.onload = () => {
  const result = [...document.querySelectorAll('iframe')].map(measure);
  document.getElementById('result').textContent = JSON.stringify(result);
};
)js";

std::filesystem::path browser() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');)
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
      if (std::filesystem::exists(std::filesystem::path(folder) / name))
        return std::filesystem::path(folder) / name;
  return {};
}

class ReportBrowserTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (browser().empty()) GTEST_SKIP() << "no chromium or google-chrome on PATH";
    test::FakeRun vit;
    vit.title = "ViT";
    vit.experts = 0;
    vit.accuracy = 0.8795;
    test::write_fake_run(dir_ / "wide");
    test::write_fake_run(dir_ / "vit", vit);
    write_report({dir_ / "wide", dir_ / "vit"}, dir_ / "report.html");
  }

  test::Ended browse(std::vector<std::string> arguments, const std::filesystem::path& page) {
    std::vector<std::string> command = {browser().string(),
                                        "--headless",
                                        "--no-sandbox",
                                        "--disable-gpu",
                                        "--disable-quic",
                                        "--no-first-run",
                                        "--disable-sync",
                                        "--disable-background-networking",
                                        "--disable-component-update",
                                        "--hide-scrollbars",
                                        "--virtual-time-budget=10000",
                                        "--user-data-dir=" + (dir_ / "profile").string()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.push_back("file://" + page.string());
    return test::RunningProgram(command, dir_.path()).wait();
  }

  // What kMeasure finds in frames of these widths.
  Json measure(const std::vector<int>& widths) {
    std::string page = "<!DOCTYPE html><html><body>";
    for (const int width : widths)
      page += format("<iframe width=\"{}\" height=\"900\" srcdoc=\"{}\"></iframe>", width,
                     html::escape(read_file(dir_ / "report.html")));
    page += format("<pre id=\"result\"></pre><script>{}</script></body></html>", kMeasure);
    write_file_atomically(dir_ / "frames.html", page);
    const auto ended = browse({"--dump-dom", "--window-size=1300,900"}, dir_ / "frames.html");
    const std::string mark = "<pre id=\"result\">";
    const auto begin = ended.output.find(mark) + mark.size();
    return Json::parse(ended.output.substr(begin, ended.output.find("</pre>", begin) - begin));
  }

  // Different colours in a screenshot of the page, at 8 levels a channel.
  std::size_t colours_of_screenshot(const std::vector<std::string>& arguments) {
    const std::string file = dir_ / "shot.png";
    std::vector<std::string> all = {"--screenshot=" + file, "--window-size=1200,2400"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    browse(all, dir_ / "report.html");
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    if (png_image_begin_read_from_file(&image, file.c_str()) == 0) return 0;
    image.format = PNG_FORMAT_RGB;
    std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(image));
    png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr);
    brightness_ = 0;
    std::set<int> colours;
    for (std::size_t i = 0; i + 2 < pixels.size(); i += 3) {
      colours.insert(pixels[i] / 32 * 64 + pixels[i + 1] / 32 * 8 + pixels[i + 2] / 32);
      brightness_ += pixels[i + 1];
    }
    brightness_ /= static_cast<double>(pixels.size()) / 3;
    return colours.size();
  }

  test::TempDir dir_;
  double brightness_ = 0;  // mean of green in the latest screenshot, 0 to 255
};

TEST_F(ReportBrowserTest, TheBrowserReadsThePage) {
  const auto ended = browse({"--dump-dom"}, dir_ / "report.html");
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  for (const char* part :
       {"2 runs side by side", "0.8795", "Experts by depth", "Confusion matrix", "weight_decay = 0.05"})
    EXPECT_NE(ended.output.find(part), std::string::npos) << part;
  EXPECT_EQ(test::count_of(ended.output, "<path class=\"c1\""),
            test::count_of(read_file(dir_ / "report.html"), "<path class=\"c1\""));
}

TEST_F(ReportBrowserTest, EverythingIsLaidOutInTheWideAndOnAPhone) {
  const Json frames = measure({1200, 360});
  ASSERT_EQ(frames.size(), 2U);
  for (const Json& frame : frames) {
    SCOPED_TRACE(frame.dump());
    EXPECT_LE(frame["overflow"], 0) << "the page scrolls sideways";
    EXPECT_GE(frame["charts"], 10);
    EXPECT_GE(frame["narrowest"], 70);
    EXPECT_GE(frame["paths"], frame["charts"]);
    EXPECT_EQ(frame["outside"], 0) << "lines leave their charts";
    EXPECT_EQ(frame["cut"], 0) << "labels leave the page";
    EXPECT_GE(frame["tick"], 11) << "too small to read";
    EXPECT_GE(frame["colours"], 10) << "the maps are not coloured";
    EXPECT_EQ(frame["pictures"], 48);
  }
  EXPECT_GE(frames[0]["labels"], 4);
  EXPECT_GT(frames[1]["height"], frames[0]["height"]);
}

TEST_F(ReportBrowserTest, ThePictureIsNotBlankByDayOrNight) {
  EXPECT_GT(colours_of_screenshot({}), 20U);
  EXPECT_GT(brightness_, 190);
  EXPECT_GT(colours_of_screenshot({"--blink-settings=preferredColorScheme=0"}), 20U);
  EXPECT_LT(brightness_, 70);
}

}  // namespace
}  // namespace stoa
