"""What is in the two packages: files, dependencies, the oldest C library that they run on, manual pages and completion. Needs no sandbox: nothing is installed."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

PROGRAMS = ("headrace", "headrace-fused", "headrace-snapshotter")
FILES = (*(f"usr/bin/{name}" for name in PROGRAMS), "etc/headrace/headrace.toml", "usr/lib/systemd/system/headrace-fused.service",
         "usr/lib/systemd/system/headrace-snapshotter.service", "usr/lib/systemd/system/headrace-snapshotter.socket",
         "usr/share/man/man1/headrace.1", "usr/share/man/man5/headrace.toml.5", "usr/share/man/man8/headrace-fused.8", "usr/share/man/man8/headrace-snapshotter.8",
         "usr/share/bash-completion/completions/headrace", "usr/share/doc/headrace/LICENSE", "usr/share/doc/headrace/copyright", "usr/share/doc/headrace/README.md",
         "usr/share/headrace/containerd/headrace-v2.toml", "usr/share/headrace/containerd/headrace-v3.toml")
# systemd/README.md, "Packages".
SHARED = {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "libssl.so.3", "libcrypto.so.3", "libcurl.so.4", "libz.so.1", "libisal.so.2"}
DEPENDS = {"libc6", "libcurl4", "libssl3", "libisal2", "zlib1g"}
GLIBC_MAX = (2, 34)  # Amazon Linux 2023


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def out(*argv, **kwargs):
    return subprocess.run(list(map(str, argv)), stdout=subprocess.PIPE, text=True, check=True, **kwargs).stdout


def files_below(folder):
    return {os.path.relpath(os.path.join(here, name), folder) for here, _, names in os.walk(folder) for name in names}


def check_program(path):
    dynamic = out("objdump", "-p", path)
    needed = set(re.findall(r"NEEDED\s+(\S+)", dynamic))
    check(needed <= SHARED, f"{path} needs {needed - SHARED}")
    versions = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([0-9.]+)", out("objdump", "-T", path))}
    check(max(versions) <= GLIBC_MAX, f"{path} needs glibc {max(versions)}")
    check(out(path, "--version").strip(), f"{path} does not run")
    # A wrong option is an exception on its way through our own frames.
    code = subprocess.run([path, "--no-such-option"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode
    check(0 < code < 128, f"{path} --no-such-option ends with {code}")
    return max(versions)


def check_manual(path, program):
    """Every option that --help has, of the program and of each of its commands, is in the page."""
    page = path.read_text().replace("\\-", "-").replace("\\e", "\\").replace("\\&", "")
    text = out(program, "--help")
    commands = re.findall(r"^  ([a-z][a-z-]*) ", text.split("Subcommands:")[1].split("\n\n")[0], re.M) if "Subcommands:" in text else []
    options = set()
    for arguments in ((), *((command,) for command in commands)):
        options |= set(re.findall(r"--[a-z][a-z-]+", out(program, *arguments, "--help")))
    check(len(options) > 3, f"{program}: no options were found")
    missing = {option for option in options if not re.search(re.escape(option) + r"(?![a-z-])", page)}
    check(not missing, f"{path.name} lacks {missing}")
    return commands


def check_completion(script, programs, commands):
    def complete(*words):
        ask = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _headrace; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return out("bash", "-c", ask, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}).split()
    check(set(complete("headrace", "''")) == set(commands), f"completion of commands: {complete('headrace', chr(39) * 2)}")
    check(complete("headrace", "doctor", "--js") == ["--json"], f"completion of options: {complete('headrace', 'doctor', '--js')}")
    check(complete("headrace", "--ver") == ["--version"], f"{complete('headrace', '--ver')}")


def check_deb(deb, folder):
    fields = dict(line.split(": ", 1) for line in out("dpkg-deb", "-f", deb).splitlines() if ": " in line)
    depends = {re.match(r"[a-z0-9.+-]+", one.strip()).group() for one in fields["Depends"].split(",")}
    check(depends == DEPENDS, f"depends on {depends}")
    out("dpkg-deb", "-R", deb, folder)
    control = {path.name for path in (folder / "DEBIAN").iterdir()}
    check({"conffiles", "postinst", "prerm", "postrm", "md5sums"} <= control, f"control files {control}")
    return files_below(folder) - {f"DEBIAN/{name}" for name in control}


def check_contents(deb, tarball):
    with tempfile.TemporaryDirectory(prefix="headrace.contents.", dir="/var/tmp") as work:
        folder = Path(work)
        in_deb = check_deb(deb, folder / "deb")
        check(in_deb == set(FILES), f"the .deb: too much {in_deb - set(FILES)}, missing {set(FILES) - in_deb}")
        (folder / "tar").mkdir()
        out("tar", "-C", folder / "tar", "--strip-components=1", "-xzf", tarball)
        in_tar = files_below(folder / "tar")
        check(in_tar == {*FILES, "usr/lib/headrace/libisal.so.2"}, f"the .tar.gz differs by {in_tar ^ set(FILES)}")
        bin_folder = folder / "tar/usr/bin"
        glibc = max(check_program(bin_folder / name) for name in PROGRAMS)
        check(str(folder) in out("ldd", bin_folder / "headrace"), "the .tar.gz does not use its own libisal")
        commands = check_manual(folder / "tar/usr/share/man/man1/headrace.1", bin_folder / "headrace")
        check_manual(folder / "tar/usr/share/man/man8/headrace-fused.8", bin_folder / "headrace-fused")
        check_manual(folder / "tar/usr/share/man/man8/headrace-snapshotter.8", bin_folder / "headrace-snapshotter")
        check_completion(folder / "tar/usr/share/bash-completion/completions/headrace", bin_folder, commands)
        licences = (folder / "tar/usr/share/doc/headrace/copyright").read_text()
        for library in ("libgrpc++-dev", "libfuse3", "LGPL-2.1", "libabsl-dev", "Apache License"):
            check(library in licences, f"no licence of {library}")
        size = sum(path.stat().st_size for path in bin_folder.iterdir())
        print(f"packages: contents are right; glibc {'.'.join(map(str, glibc))} or later; programs {size >> 20} MiB, {Path(deb).name} {Path(deb).stat().st_size >> 20} MiB", flush=True)
