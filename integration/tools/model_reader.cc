// model-reader: runs inside a test pod and reads every file of a model directory, as a loader would: the small files
// first, then the weight shards in their order. Prints one JSON line:
//   {"start_ns","first_byte_ns","all_read_ns","directory","bytes","files":{"name":{"size","sha256"}}}
// Times are nanoseconds of the realtime clock: start of main, first byte of a weight shard in hand, everything read.
//
//   model-reader DIR [--mmap] [--proc-root] [--timeout S] [--repeat N] [--sleep]
//     --mmap       read through mmap instead of read(2)
//     --proc-root  DIR is looked for below /proc/<pid>/root of the other processes of the pod (ModelCar) until it appears
//     --wait-for P wait until P exists before anything is read
//     --repeat N   read everything N times, one JSON line each
//     --sleep      hold the pod afterwards until SIGTERM
// Exit code: 0 all read, 1 an error (printed as {"error": ...}).
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = size_t{4} << 20;

struct Options {
  std::string directory;
  std::string wait_for;
  bool use_mmap = false;
  bool proc_root = false;
  bool sleep = false;
  int timeout_s = 60;
  int repeat = 1;
};

struct FileResult {
  std::string name;
  uint64_t size = 0;
  std::string sha256;
};

int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::string Quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char buffer[8];
      snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned>(c));
      out += buffer;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

[[noreturn]] void Fail(const std::string& what) {
  printf("{\"error\":%s}\n", Quote(what).c_str());
  fflush(stdout);
  exit(1);
}

[[noreturn]] void FailErrno(const std::string& what) { Fail(what + ": " + strerror(errno)); }

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    if (context_ == nullptr || EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) != 1) Fail("no SHA-256");
  }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t size) { EVP_DigestUpdate(context_, data, size); }
  std::string Hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_, digest, &size);
    std::string out;
    for (unsigned i = 0; i < size; ++i) {
      char buffer[3];
      snprintf(buffer, sizeof buffer, "%02x", digest[i]);
      out += buffer;
    }
    return out;
  }

 private:
  EVP_MD_CTX* context_;
};

bool IsWeights(const std::string& name) { return name.ends_with(".safetensors"); }

// Relative names of all regular files below `root`, small files before weights, each in order of name.
std::vector<std::string> ListFiles(const std::string& root) {
  std::vector<std::string> names;
  std::error_code error;
  fs::recursive_directory_iterator it(root, error);
  if (error) Fail("cannot list " + root + ": " + error.message());
  for (; it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (it->is_regular_file(error)) names.push_back(it->path().lexically_relative(root).string());
    if (error) Fail("cannot list " + it->path().string() + ": " + error.message());
  }
  if (error) Fail("cannot list " + root + ": " + error.message());
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    if (IsWeights(a) != IsWeights(b)) return IsWeights(b);
    return a < b;
  });
  return names;
}

void ReadByCalls(int fd, const std::string& path, char* buffer, Sha256* sha, uint64_t* size) {
  for (;;) {
    const ssize_t count = read(fd, buffer, kBlock);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) FailErrno("cannot read " + path + " at " + std::to_string(*size));
    if (count == 0) return;
    sha->Update(buffer, static_cast<size_t>(count));
    *size += static_cast<uint64_t>(count);
  }
}

void ReadByMmap(int fd, const std::string& path, Sha256* sha, uint64_t* size) {
  struct stat status {};
  if (fstat(fd, &status) != 0) FailErrno("cannot stat " + path);
  const auto total = static_cast<size_t>(status.st_size);
  if (total == 0) return;
  void* const map = mmap(nullptr, total, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) FailErrno("cannot map " + path);
  for (size_t at = 0; at < total; at += kBlock) {
    sha->Update(static_cast<const char*>(map) + at, std::min(kBlock, total - at));
  }
  munmap(map, total);
  *size = total;
}

void ReadOnce(const Options& options, const std::string& root, int64_t start_ns) {
  static char* const buffer = static_cast<char*>(aligned_alloc(4096, kBlock));
  if (buffer == nullptr) Fail("no memory");
  int64_t first_byte_ns = 0;
  uint64_t bytes = 0;
  std::vector<FileResult> files;
  for (const std::string& name : ListFiles(root)) {
    const std::string path = root + "/" + name;
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) FailErrno("cannot open " + path);
    if (first_byte_ns == 0 && IsWeights(name)) {
      // What a loader reads first: the length of the header.
      if (pread(fd, buffer, 8, 0) != 8) FailErrno("cannot read the first bytes of " + path);
      first_byte_ns = NowNs();
    }
    Sha256 sha;
    FileResult file{name, 0, ""};
    if (options.use_mmap) {
      ReadByMmap(fd, path, &sha, &file.size);
    } else {
      ReadByCalls(fd, path, buffer, &sha, &file.size);
    }
    close(fd);
    file.sha256 = sha.Hex();
    bytes += file.size;
    files.push_back(std::move(file));
  }
  const int64_t all_read_ns = NowNs();
  std::string line = "{\"start_ns\":" + std::to_string(start_ns) + ",\"first_byte_ns\":" +
                     std::to_string(first_byte_ns) + ",\"all_read_ns\":" + std::to_string(all_read_ns) +
                     ",\"directory\":" + Quote(root) + ",\"bytes\":" + std::to_string(bytes) + ",\"files\":{";
  for (size_t i = 0; i < files.size(); ++i) {
    if (i != 0) line += ',';
    line += Quote(files[i].name) + ":{\"size\":" + std::to_string(files[i].size) + ",\"sha256\":\"" +
            files[i].sha256 + "\"}";
  }
  printf("%s}}\n", line.c_str());
  fflush(stdout);
}

// The directory below the root of another process of the pod, or "" if no process shows it yet.
std::string FindBelowProcRoots(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos || pid == std::to_string(getpid())) continue;
    const std::string candidate = "/proc/" + pid + "/root" + directory;
    if (fs::is_directory(candidate, error)) return candidate;
  }
  return "";
}

void Pause() {
  const timespec poll{0, 5'000'000};
  nanosleep(&poll, nullptr);
}

Options ParseArguments(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--mmap") {
      options.use_mmap = true;
    } else if (argument == "--proc-root") {
      options.proc_root = true;
    } else if (argument == "--sleep") {
      options.sleep = true;
    } else if (argument == "--wait-for" && has_value) {
      options.wait_for = argv[++i];
    } else if (argument == "--timeout" && has_value) {
      options.timeout_s = atoi(argv[++i]);
    } else if (argument == "--repeat" && has_value) {
      options.repeat = atoi(argv[++i]);
    } else if (options.directory.empty() && !argument.starts_with("--")) {
      options.directory = argument;
    } else {
      Fail("unknown argument " + argument);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  int64_t start_ns = NowNs();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);

  const Options options = ParseArguments(argc, argv);
  const int64_t give_up_ns = start_ns + int64_t{options.timeout_s} * 1'000'000'000;
  while (!options.wait_for.empty() && access(options.wait_for.c_str(), F_OK) != 0) {
    if (NowNs() > give_up_ns) Fail(options.wait_for + " did not appear");
    Pause();
  }
  std::string root = options.directory;
  if (options.proc_root) {
    while ((root = FindBelowProcRoots(options.directory)).empty()) {
      if (NowNs() > give_up_ns) Fail("no process of this pod shows " + options.directory);
      Pause();
    }
  }
  if (!root.empty()) {
    sigprocmask(SIG_UNBLOCK, &signals, nullptr);  // reading may be interrupted
    for (int i = 0; i < options.repeat; ++i) {
      ReadOnce(options, root, start_ns);
      start_ns = NowNs();
    }
    sigprocmask(SIG_BLOCK, &signals, nullptr);
  }
  if (options.sleep) {
    int signal = 0;
    sigwait(&signals, &signal);
  }
  return 0;
}
