# Sourced by the commands of integration/: builds Headrace with what integration/setup provides.

# build_preset PRESET CMAKE_ARGUMENTS -- TARGETS: configures and builds <repository>/build/<preset>; quiet unless it fails.
# Warnings are errors, for every command alike (two settings would mean two builds); HEADRACE_WERROR=OFF for a newer compiler than ours.
# HEADRACE_JOBS limits the parallel compilations (default: one for each core).
build_preset() {
  local preset=$1; shift
  local -a arguments=() targets=()
  while [[ $# -gt 0 && $1 != -- ]]; do arguments+=("$1"); shift; done
  [[ $# -gt 0 ]] && shift
  targets=("$@")
  local directory=$root/build/$preset log=$root/build/$preset.log
  local jobs=${HEADRACE_JOBS:-$(nproc)}
  mkdir -p "$directory"
  # One cache for every clone of the repository: paths below it are hashed relative to the build directory.
  export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
  printf 'build: %s (log: %s)\n' "$preset" "$log"
  {
    cd "$root" &&
      cmake --preset "$preset" -DHEADRACE_LIBFUSE_PREFIX="$("$root/integration/setup" --print-libfuse-prefix)" \
        -DHEADRACE_WERROR="${HEADRACE_WERROR:-ON}" "${arguments[@]}" &&
      ninja -C "$directory" -j "$jobs" "${targets[@]}"
  } >"$log" 2>&1 </dev/null || {
    printf 'build: %s FAILED; the end of %s:\n' "$preset" "$log" >&2
    tail -n 40 "$log" | sed 's/^/    /' >&2
    return 1
  }
}
