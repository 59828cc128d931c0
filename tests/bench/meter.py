"""What a command costs with all processes that it starts: wall and CPU seconds, and the peak
memory of each kind of process.

wait4 and RUSAGE_CHILDREN do not do for Spark: they know the CPU time of children that somebody waited for,
but PySpark's daemon ignores SIGCHLD, so what its workers used is dropped when they end, and the JVM outlives the driver
that started it: of an ingest of 41.6 CPU seconds they told 1.5. A control group counts every process in it, whoever
its parent is, to its end. Where none may be made (a container, no root) the processes of the command's session are read
from /proc instead, which misses of each process what it used after the last look (of the same ingest it told 40.8).
`check` measures a tree of processes of all these sorts whose use is known.

Peaks are VmHWM, the kernel's own high-water mark, so that looking now and then misses only a rise in the last moments.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

INTERVAL = 0.05  # seconds between looks
_LINGER = 30  # seconds that a command's processes may outlive it
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """`peaks`: bytes by kind of process: jvm, worker (PySpark's), main (anything else)."""

    seconds: float
    cpu: float
    peaks: dict[str, int]
    stdout: str


@dataclass(frozen=True)
class _Group:
    """A control group; `usage` is its file of CPU time, in version 2 or 1 of the kernel's interface."""

    folder: Path
    usage: str

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def pids(self) -> list[int]:
        return [int(line) for line in (self.folder / "cgroup.procs").read_text().split()]

    def cpu(self) -> float:
        text = (self.folder / self.usage).read_text()
        return (
            int(text) / 1e9 if self.usage == "cpuacct.usage" else int(text.split("usage_usec", 1)[1].split()[0]) / 1e6
        )

    def remove(self) -> None:
        for _ in range(20):  # it is busy until the last process is gone altogether
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(INTERVAL)


@dataclass(frozen=True)
class _Session:
    """Where no control group can be had: the processes of session `leader`;
    `ticks` holds what each had used when last seen."""

    leader: int
    ticks: dict[tuple[int, int], int]

    def pids(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(name)
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.leader:
                    self.ticks[pid, int(fields[19])] = int(fields[11]) + int(fields[12])
                    if fields[0] not in "ZX":
                        found.append(pid)
        return found

    def cpu(self) -> float:
        return sum(self.ticks.values()) / _TICKS

    def remove(self) -> None:
        pass


def _places() -> Iterator[tuple[Path, str]]:
    """Control groups that this process is in, and their files of CPU time; version 2 first."""
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    mounts = sorted(
        (line.split() for line in Path("/proc/self/mounts").read_text().splitlines()), key=lambda m: m[2], reverse=True
    )
    for _, point, kind, options, *_ in mounts:
        if kind in ("cgroup", "cgroup2"):
            usage = "cpu.stat" if kind == "cgroup2" else "cpuacct.usage"
            for _, controllers, path in own:
                if (
                    not controllers
                    if kind == "cgroup2"
                    else "cpuacct" in controllers.split(",") and "cpuacct" in options.split(",")
                ):
                    yield Path(point + path), usage


@cache
def place() -> tuple[Path, str] | None:
    """The first control group below which this process may make one and put a command there."""
    for parent, usage in _places():
        group = _Group(parent / f"genodl-bench-{os.getpid()}", usage)
        try:
            group.folder.mkdir()
            subprocess.run(["true"], preexec_fn=group.enter, check=True)
            group.cpu()
            return parent, usage
        except (OSError, subprocess.SubprocessError, LookupError, ValueError):
            continue
        finally:
            if group.folder.exists():
                group.remove()
    return None


def measure(command: list[str], cpus: Collection[int] | None = None, cwd: Path | None = None) -> Cost:
    """Runs a command, on `cpus` alone where given. RuntimeError, with the end of its standard error, where it fails."""
    found = place()
    group = None if found is None else _Group(found[0] / f"genodl-bench-{os.getpid()}", found[1])

    def enter() -> None:
        if group is not None:
            group.enter()
        if cpus is not None:
            os.sched_setaffinity(0, cpus)

    peaks: dict[str, int] = {}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if group is not None:
            group.folder.mkdir()
        try:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, stdout=out, stderr=err, cwd=cwd, start_new_session=True, preexec_fn=enter
            )
            watched = group or _Session(process.pid, {})
            try:
                handle = os.pidfd_open(process.pid)
                while not select.select([handle], [], [], INTERVAL)[0]:
                    _look(watched.pids(), peaks)
                seconds = time.perf_counter() - started
                os.close(handle)
                while watched.pids() and time.perf_counter() < started + seconds + _LINGER:
                    _look(watched.pids(), peaks)
                    time.sleep(INTERVAL)
            finally:
                for pid in watched.pids():  # what the command left, and all of it where we were interrupted
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
            cpu = watched.cpu()
        finally:
            if group is not None:
                group.remove()
        for stream in (out, err):
            stream.seek(0)
        if process.returncode:
            raise RuntimeError(
                f"{' '.join(command)}: exit code {process.returncode}: {err.read()[-2000:].decode(errors='replace')}"
            )
        return Cost(seconds, cpu, peaks, out.read().decode(errors="replace"))


def _look(pids: list[int], peaks: dict[str, int]) -> None:
    own = Path("/proc/self/cmdline").read_bytes()
    for pid in pids:
        with contextlib.suppress(OSError, LookupError):  # it ended meanwhile
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            high = Path(f"/proc/{pid}/status").read_text().split("VmHWM:", 1)[1].split()[0]
            if line and line != own:  # between fork and exec the memory is still ours
                kind = (
                    "jvm"
                    if line.split(b"\0")[0].endswith(b"java")
                    else "worker"
                    if b"pyspark.daemon" in line
                    else "main"
                )
                peaks[kind] = max(peaks.get(kind, 0), int(high) * 1024)


_BURN = 0.25
_TREE = f"""
import os, signal, time
def burn():
    while time.process_time() < {_BURN}: pass
def child(work):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return pid
def unheard():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    child(burn)
    try: os.wait()  # returns when the child has ended, with an error, as nothing of it is kept
    except ChildProcessError: pass
    burn()
os.waitpid(child(burn), 0)
os.waitpid(child(unheard), 0)
child(lambda: os.setpgid(0, 0) or burn())  # outlives its parent
burn()
"""


def check() -> float:
    """CPU seconds that five processes of `_BURN` seconds each are found to use; RuntimeError where that is not so."""
    found, true = measure([sys.executable, "-S", "-c", _TREE]).cpu, 5 * _BURN
    missed = 0.0 if place() else 5 * 2 * INTERVAL
    if not true - missed - 0.02 <= found <= true + 0.2:
        raise RuntimeError(
            f"found {found:.2f} CPU seconds; expected {true:.2f}, the use of the tree of processes that was measured"
        )
    return found
