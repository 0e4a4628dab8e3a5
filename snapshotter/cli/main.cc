// headrace: the command. See README.md of this folder.
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "fusefs/base/log.h"
#include "snapshotter/cli/command_line.h"
#include "snapshotter/cli/interrupt.h"

int main(int argc, char** argv) {
  using headrace::cli::kExitFailed;
  try {
    // Before any other thread: they inherit the blocked signals.
    auto interrupt = headrace::cli::Interrupt::Create();
    const headrace::Status log = headrace::log::Setup("headrace", "warn");
    if (!interrupt.ok() || !log.ok()) {
      const headrace::Status& failure = interrupt.ok() ? log : interrupt.status();
      std::cerr << "headrace: " << failure.message() << "\n";
      return kExitFailed;
    }
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const int code = headrace::cli::RunCommandLine(arguments, {std::cout, std::cerr, interrupt->get()});
    std::cout.flush();
    if (!std::cout) {
      std::cerr << "headrace: standard output cannot be written\n";
      return kExitFailed;
    }
    return code;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "headrace: unexpected failure: %s\n", e.what());
    return kExitFailed;
  }
}
