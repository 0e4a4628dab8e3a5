// Goal: prove that a sanitizer build really has its sanitizer. The program misbehaves on purpose, and CTest expects it to fail (WILL_FAIL);
// it exits 0, which fails the test, if nobody notices. Built in sanitizer presets only.
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "thread") == 0) {
    int shared = 0;
    std::thread other([&] {
      for (int i = 0; i < 1000; ++i) ++shared;
    });
    for (int i = 0; i < 1000; ++i) ++shared;
    other.join();
    std::printf("%d\n", shared);
  } else {
    auto buffer = std::make_unique<char[]>(16);
    volatile size_t past_the_end = 16;
    std::printf("%d\n", buffer[past_the_end]);
  }
  return 0;
}
