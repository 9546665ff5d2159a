#include "stoa/base/interrupt.h"

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

namespace stoa {
namespace {

// Exit code of a child process that does `work` and ends with its result; 256 + signal where a signal ended
// it.
template <class Work>
int exit_code_of(const Work& work) {
  const pid_t child = fork();
  if (child == 0) _exit(work());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

TEST(Interrupt, NothingIsAskedAtFirst) {
  EXPECT_EQ(exit_code_of([] {
              install_interrupt_handler();
              return interrupted() ? 1 : 0;
            }),
            0);
}

TEST(Interrupt, TheFirstSignalOnlySetsTheFlag) {
  for (const int signal : {SIGINT, SIGTERM})
    EXPECT_EQ(exit_code_of([&] {
                install_interrupt_handler();
                raise(signal);
                return interrupted() ? 42 : 1;
              }),
              42);
}

TEST(Interrupt, TheFirstSignalIsAnsweredAtOnce) {
  testing::internal::CaptureStderr();
  exit_code_of([] {
    install_interrupt_handler();
    return raise(SIGINT);
  });
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "stopping after this step; Ctrl-C again stops at once\n");
}

TEST(Interrupt, TheSecondSignalEndsTheProcessWith130) {
  EXPECT_EQ(exit_code_of([] {
              install_interrupt_handler();
              raise(SIGINT);
              raise(SIGTERM);
              return 1;
            }),
            130);
}

TEST(Interrupt, WithoutTheHandlerASignalEndsTheProcessAsUsual) {
  EXPECT_EQ(exit_code_of([] { return raise(SIGINT); }), 256 + SIGINT);
}

}  // namespace
}  // namespace stoa
