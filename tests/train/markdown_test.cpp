#include "stoa/train/markdown.h"

#include <gtest/gtest.h>

namespace stoa::html {
namespace {

TEST(Markdown, ParagraphsEndAtEmptyLines) {
  EXPECT_EQ(from_markdown("one\ntwo\n\n\nthree\n"), "<p>one two</p>\n<p>three</p>\n");
}

TEST(Markdown, ListsHaveItems) {
  EXPECT_EQ(from_markdown("- one\n  more\n- two\n\nafter"),
            "<ul>\n<li>one more</li>\n<li>two</li>\n</ul>\n<p>after</p>\n");
}

TEST(Markdown, SpansAreMarked) {
  EXPECT_EQ(from_markdown("`a*b*<` **c *d*** [e](f.md)"),
            "<p><code>a*b*&lt;</code> <strong>c *d</strong>* <a href=\"f.md\">e</a></p>\n");
}

TEST(Markdown, WhatIsNoMarkupStandsAsItIs) {
  EXPECT_EQ(from_markdown("2 * 3 < 7 & `x"), "<p>2 * 3 &lt; 7 &amp; `x</p>\n");
}

TEST(Markdown, LinksRunNoScripts) {
  EXPECT_EQ(from_markdown("[a](javascript:b)"), "<p>[a](javascript:b)</p>\n");
}

}  // namespace
}  // namespace stoa::html
