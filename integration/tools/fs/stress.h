// fs-stress: operations at random in a mount and in the same tree on a native file system; whatever they say must be the same.
//
// An operation is a function that works in the current directory (the root of the tree; each thread has its own) and writes what it was told into a
// log. It is run with the same draws in both roots and the logs are compared; what may rightly differ between file systems (order of a directory,
// extents) is looked at by the operation itself and not logged. Operations run beside others on the same files, so they log nothing that those change.
#ifndef HEADRACE_INTEGRATION_TOOLS_FS_STRESS_H_
#define HEADRACE_INTEGRATION_TOOLS_FS_STRESS_H_

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "integration/tools/fs/log.h"

namespace headrace::fs {

struct TreeEntry {
  std::string path;  // relative to the root; "." for itself
  mode_t type = 0;   // S_IFMT bits
  uint64_t size = 0;
};

// What is drawn of the tree, as it was when the run began; the same for both roots.
struct Tree {
  std::vector<TreeEntry> all;
  std::vector<size_t> files, directories, links;  // positions in `all`; files: with at least a byte
};

// Reads the tree below the current directory, but for what is called `skip` in it ("" for nothing).
Tree ReadTree(const std::string& skip);

struct Scene {
  Random random;
  const Tree& tree;
  bool writable = false;  // an overlay with an upper directory: operations may open for writing and so copy files up
  bool overlay = false;
  int root = -1;          // the directory that we are in
  Log* log = nullptr;

  const TreeEntry& Any() { return tree.all[random.Below(tree.all.size())]; }
  const TreeEntry& File() { return tree.all[tree.files[random.Below(tree.files.size())]]; }
  const TreeEntry& Directory() { return tree.all[tree.directories[random.Below(tree.directories.size())]]; }
  const TreeEntry& Link() { return tree.all[tree.links[random.Below(tree.links.size())]]; }
};

struct Operation {
  const char* name;
  unsigned weight;
  void (*run)(Scene&);
};

// stress_files.cc, stress_maps.cc, stress_names.cc
std::vector<Operation> FileOperations();
std::vector<Operation> MapOperations();
std::vector<Operation> NameOperations();

// Opens a file of the tree for reading in one of the ways that there are; logs the outcome.
int OpenForReading(Scene& scene, const TreeEntry& entry);

// A piece of a file: offsets and sizes of many kinds, also behind its end.
struct Piece {
  uint64_t offset;
  size_t size;
};
Piece DrawPiece(Scene& scene, uint64_t file_size);

}  // namespace headrace::fs

#endif  // HEADRACE_INTEGRATION_TOOLS_FS_STRESS_H_
