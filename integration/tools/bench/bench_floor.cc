// bench-floor: the controls of the benchmark, each without any code of the daemon in the way.
//
//   bench-floor wire --url U --size N [--url U --size N]... --connections N --range BYTES   parallel range GETs to nowhere
//   bench-floor cpu --layout DIR --threads N [--limit BYTES]    SHA-256 + zstd + one copy of every chunk
//   bench-floor read --dir DIR --threads N                      parallel pread of *.safetensors
// Each prints {"bytes","seconds","cpu_s",...}.
#include <string>
#include <vector>

#include "fusefs/base/executor.h"
#include "integration/tools/bench/common.h"
#include "integration/tools/bench/floor.h"
#include "integration/tools/bench/wire.h"

namespace headrace::bench {
namespace {

Json Wire(const std::vector<std::string>& urls, const std::vector<uint64_t>& sizes, unsigned connections, uint64_t range) {
  if (urls.size() != sizes.size()) Fail("as many --size as --url");
  if (range == 0) Fail("--range is 0");
  std::vector<WireBlob> blobs;
  for (size_t i = 0; i < urls.size(); ++i) blobs.push_back({urls[i], sizes[i]});
  const double cpu = OwnCpu();
  const WireResult result = FetchAll(blobs, connections, range);
  return {{"bytes", result.bytes},
          {"seconds", result.seconds},
          {"cpu_s", OwnCpu() - cpu},
          {"requests", result.requests},
          {"first_byte_s", result.first_byte_s}};
}

Json Cpu(const std::string& layout, unsigned threads, uint64_t limit) {
  const CpuFloor floor = MeasureCpuFloor(layout, threads, limit);
  return {{"bytes", floor.bytes}, {"seconds", floor.seconds}, {"cpu_s", floor.cpu_s}, {"compressed_bytes", floor.compressed_bytes}};
}

Json Read(const std::string& directory, unsigned threads) {
  const ReadFloor floor = MeasureReadFloor(directory, threads);
  return {{"bytes", floor.bytes}, {"seconds", floor.seconds}, {"cpu_s", floor.cpu_s}};
}

}  // namespace
}  // namespace headrace::bench

int main(int argc, char** argv) {
  using namespace headrace::bench;
  CLI::App app("The controls of the benchmark", "bench-floor");
  std::vector<std::string> urls;
  std::vector<uint64_t> sizes;
  unsigned connections = 16, threads = headrace::CoreCount();
  uint64_t range = 8 * kMib, limit = 0;
  std::string layout, directory;
  app.require_subcommand(1);
  CLI::App* const wire = app.add_subcommand("wire", "parallel range GETs to nowhere");
  wire->add_option("--url", urls, "http://HOST:PORT/PATH of a blob; may be repeated")->required();
  AddBytesList(*wire, "--size", sizes, "bytes of the blob; once for each --url, in the same order")->required();
  wire->add_option("--connections", connections, "at once (16)")->check(CLI::Range(1u, 1024u));
  AddBytes(*wire, "--range", range, "bytes that one GET asks for (8MiB)");
  CLI::App* const cpu = app.add_subcommand("cpu", "SHA-256, zstd and one copy of every chunk of an image");
  cpu->add_option("--layout", layout, "OCI layout directory")->required();
  cpu->add_option("--threads", threads, "one for each core")->check(CLI::Range(1u, 256u));
  AddBytes(*cpu, "--limit", limit, "only so many decoded bytes");
  CLI::App* const read = app.add_subcommand("read", "parallel pread of a directory's shards");
  read->add_option("--dir", directory, "directory with *.safetensors")->required();
  read->add_option("--threads", threads, "one for each core")->check(CLI::Range(1u, 256u));
  return RunTool(app, argc, argv, [&] {
    if (wire->parsed()) PrintLine(Wire(urls, sizes, connections, range));
    if (cpu->parsed()) PrintLine(Cpu(layout, threads, limit));
    if (read->parsed()) PrintLine(Read(directory, threads));
    return 0;
  });
}
