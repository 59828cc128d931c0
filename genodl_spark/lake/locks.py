"""Leases in a lake: runs that write to it share one, and a run that forgets a person holds it alone.

A lease is a small file below LAKE/_locks, `writing-ID.json` or `forgetting-ID.json`; one of something in the lake
that runs use one at a time, such as the checkpoints of a training, is `holding-ID.json` in a folder of that name below.
A run writes its file first and lists the folder after that, so of two runs that start together at least
one sees the other. Nothing more is asked of a file system than that a listing shows what was written before it:
there is no rename and no write that fails where a file is.

A run that shares gives way to every announced exclusive one: it takes its own file away,
and tries again when the other has gone. An exclusive run keeps its file while it waits for those that were there;
of two exclusive ones that see each other the one of the greater name gives way.

A lease outlives no process for long. A thread writes the file again every few seconds.
Whoever finds a file that was not written again for `EXPIRE` seconds, by the clock of the file system, or whose
process on this host has gone, removes it. What stands in the file is for people and for this last question only:
a file that cannot be read counts as a lease until it expires.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import posixpath
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.fs as pafs

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, InputError

log = logging.getLogger("genodl")

FOLDER = "_locks"
RENEW = 4.0  # seconds between two writes of a lease
EXPIRE = 40.0  # seconds without one after which it is dead
_POLL = 0.25
_SETTLE = 2.0  # seconds in which the JVM of a killed driver ends
_SKEW = 60.0  # seconds that a host's clock may be off the file system's
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_LARGEST = 4096  # bytes of a lease that are read
_FILE = re.compile(r"(writing|forgetting|holding)-([0-9a-f]{32})\.json")
_PLAIN = re.compile(r"[\w.:+-]{1,255}", re.ASCII)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. `host` is for people; `machine` (boot and process namespace) and `began`
    (clock ticks since boot at which the process started) tell whether the process is still there,
    and are empty where the system does not say."""

    verb: str
    host: str
    pid: int
    machine: str
    began: str
    since: str

    def gone(self) -> bool:
        """Whether the process ran on this machine and has ended."""
        return bool(self.machine) and bool(self.began) and self.machine == _machine() and _began(self.pid) != self.began


class Lease:
    """A lease on the lake at `uri`. `since`: when it was had, by the clock of the file system (seconds of the epoch).

    `unwritable`: why a shared lease could not be left; such a run cannot write to the lake either.
    """

    def __init__(self, uri: str, verb: str, run_id: str, exclusive: bool = False, of: str = "") -> None:
        self.uri, self.exclusive = storage.absolute(uri), exclusive
        self.since: float | None = None
        self.unwritable: str | None = None
        self._name = f"{'holding' if of else 'forgetting' if exclusive else 'writing'}-{run_id}.json"
        self._fs, lake = storage.filesystem(self.uri)
        self._folder = posixpath.join(lake, FOLDER, of) if of else posixpath.join(lake, FOLDER)
        self._path = posixpath.join(self._folder, self._name)
        started = datetime.now(UTC).strftime(_TIME)
        me = Holder(verb, platform.node(), os.getpid(), _machine(), _began(os.getpid()), started)
        self._content = json.dumps(asdict(me)).encode()
        self._absent = _absent(self._fs, lake)
        self._process = os.getpid()
        self._announced = self._lost = False
        self._written = 0.0  # of this process's clock
        self._clock: float | None = None  # the file system's, less this process's
        # when another lease was last written, and since when that is known
        self._seen: dict[str, tuple[float, float]] = {}
        self._mutex = threading.RLock()  # a signal may come while this thread holds it
        self._ended = threading.Event()

    def acquire(self, wait: float) -> None:
        """Takes the lease. Conflict, naming who holds it, where that is not possible within `wait` seconds."""
        until, told = time.monotonic() + wait, False
        try:
            self._announce()
        except OSError as error:
            if not _read_only(error):
                raise
            if self.exclusive:
                raise InputError(
                    f"the lake cannot be written ({error}); expected one where files may be removed", self.uri
                ) from error
            self._announced = False
            self.unwritable = str(error)
            return
        threading.Thread(target=self._keep, name="lease", daemon=True).start()
        while True:
            others = self._others()
            if self._announced and not others:
                self._settle()
                return
            if not self._announced and not any(exclusive for _, exclusive in others):
                self._announce()
                continue
            if self._gives_way(others):
                self._withdraw()
            if time.monotonic() > until:
                self._withdraw()
                raise Conflict(f"{self._describe(others)}; run this one again when that has ended")
            if not told:
                log.warning("waiting for another run: %s", self._describe(others))
                told = True
            time.sleep(_POLL)

    def check(self) -> None:
        """Conflict where the lease was lost: this process stood still for so long that others took it for dead."""
        if self._announced and not self._ended.is_set() and time.monotonic() - self._written > EXPIRE / 2:
            self._renew()
        if self._lost:
            raise Conflict(
                f"this run was not heard of for {EXPIRE:g} seconds and has lost its lease of the lake; run it again"
            )

    def release(self) -> None:
        """Gives the lease back, and leaves no empty folder."""
        self._ended.set()
        self._withdraw()
        if not storage.is_local(self.uri):
            if self._absent and not storage.files_under(self.uri):
                storage.remove_directory(self.uri)
            return
        with contextlib.suppress(OSError):  # not empty
            for folder in (self._folder, *self._absent):
                os.rmdir(folder)

    def _announce(self) -> None:
        with self._mutex:
            self._announced = True
            self._settle()

    def _settle(self) -> None:
        """Reads the file system's clock off the lease, as just written."""
        with self._mutex:
            self._write()
            modified = self._fs.get_file_info(self._path).mtime_ns
            if modified:
                self.since, self._clock = modified / 1e9, modified / 1e9 - self._written

    def _write(self) -> None:
        for left in range(5, -1, -1):
            try:
                storage.make_folder(self._fs, self._folder)
                # Written where it is: a file moved into its place would be absent for a moment on some file systems.
                with self._fs.open_output_stream(self._path, compression=None) as stream:
                    stream.write(self._content)
            except FileNotFoundError:  # another run has removed the empty folder
                if not left:
                    raise
            else:
                self._written = time.monotonic()
                return

    def _withdraw(self) -> None:
        with self._mutex:
            if self._announced and os.getpid() == self._process:  # a forked child is not who holds it
                self._announced = False
                _remove(self._fs, self._path)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW):
            self._renew()

    def _renew(self) -> None:
        with self._mutex, contextlib.suppress(OSError):  # tried again in a moment
            if not self._announced or self._lost or self._ended.is_set():
                return
            if self._fs.get_file_info(self._path).type != pafs.FileType.File:
                self._lost = True
            elif storage.is_local(self.uri):
                os.utime(self._path)  # makes no file where somebody has just removed it
                self._written = time.monotonic()
            else:
                self._write()

    def _others(self) -> list[tuple[str, bool]]:
        """Leases that stand in the way of this one (name, whether exclusive), in the order of their names;
        those of the dead are removed."""
        found, settling = [], False
        listed = {info.base_name: info for info in _leases(self._fs, self._folder)}
        self._seen = {name: seen for name, seen in self._seen.items() if name in listed}
        for name, info in sorted(listed.items()):
            exclusive = not name.startswith("writing")
            if name == self._name or not (exclusive or self.exclusive):
                continue
            holder = _holder(self._fs, info.path)
            gone = holder is not None and holder.gone()
            if gone or self._expired(name, (info.mtime_ns or 0) / 1e9):
                log.warning("removing the lease of a run that has ended: %s", _told(holder, name))
                _remove(self._fs, info.path)
                settling |= gone and self.exclusive
            else:
                found.append((name, exclusive))
        if settling:
            time.sleep(_SETTLE)
        return found

    def _expired(self, name: str, written: float) -> bool:
        """By the file system's clock; as clocks may be put forward, only where it was also seen to be left alone
        for two renewals. A time that has not come yet tells nothing: then what was seen decides."""
        now = time.monotonic()
        if self._seen.get(name, (None, 0.0))[0] != written:
            self._seen[name] = (written, now)
        watched = now - self._seen[name][1]
        age = 0.0 if self._clock is None else now + self._clock - written
        return watched > EXPIRE or (age > EXPIRE and watched > 2 * RENEW)

    def _gives_way(self, others: list[tuple[str, bool]]) -> bool:
        return any(exclusive and (not self.exclusive or name < self._name) for name, exclusive in others)

    def _describe(self, others: list[tuple[str, bool]]) -> str:
        name = others[0][0] if others else ""
        return (
            f"found {_told(_holder(self._fs, posixpath.join(self._folder, name)), name)}; expected no other run"
            if others
            else "found another run"
        )


def oldest(uri: str, but: str) -> float | None:
    """When the oldest of the runs that have a lease of the lake at `uri` began, `but` the one of that id:
    seconds of the epoch by the clock of the file system, or a little earlier. 0 where a lease does not tell,
    None where there is no other."""
    fs, lake = storage.filesystem(storage.absolute(uri))
    found = _leases(fs, posixpath.join(lake, FOLDER))
    # this run's own, where it has one: those that it has outlived are dead
    last = max((info.mtime_ns or 0 for info in found), default=0)
    others = [info for info in found if but not in info.base_name and (info.mtime_ns or 0) / 1e9 > last / 1e9 - EXPIRE]
    return min((_start(_holder(fs, info.path)) for info in others), default=None)


def _start(holder: Holder | None) -> float:
    with contextlib.suppress(ValueError):
        if holder is not None:
            return datetime.strptime(holder.since, _TIME).replace(tzinfo=UTC).timestamp() - _SKEW
    return 0.0


def _leases(fs: pafs.FileSystem, folder: str) -> list[Any]:
    with contextlib.suppress(FileNotFoundError):  # the empty folder was removed while it was listed
        listed = fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return [info for info in listed if info.type == pafs.FileType.File and _FILE.fullmatch(info.base_name)]
    return []


@contextlib.contextmanager
def held(
    uri: str, verb: str, run_id: str, exclusive: bool = False, wait: float = 60.0, of: str = ""
) -> Iterator[Lease]:
    """A lease of the lake at `uri`, or an exclusive one `of` something in it, for as long as the block runs;
    `run_id`: 32 hexadecimal digits.

    Conflict where it is not to be had.

    SIGTERM within the block gives it back too, before the process ends as it would have.
    """
    lease = Lease(uri, verb, run_id, exclusive or bool(of), of)
    try:
        with _before_sigterm(lease.release):
            lease.acquire(wait)
            yield lease
    finally:
        lease.release()


@contextlib.contextmanager
def _before_sigterm(work: Callable[[], None]) -> Iterator[None]:
    """Has SIGTERM do `work` before what it did; only the main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, _: Any) -> None:
        work()
        signal.signal(number, before if before is not None else signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _holder(fs: pafs.FileSystem, path: str) -> Holder | None:
    """Who a lease says that it is of; None where the file has gone or says something else than a run writes."""
    try:
        with fs.open_input_stream(path, compression=None) as stream:
            found = json.loads(stream.read(_LARGEST))
        holder = Holder(**{name: found[name] for name in Holder.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (holder.verb, holder.host, holder.since)
    plain = all(isinstance(text, str) and _PLAIN.fullmatch(text) for text in texts)
    known = (
        isinstance(holder.machine, str)
        and isinstance(holder.began, str)
        and type(holder.pid) is int
        and 0 < holder.pid < 1 << 32
    )
    return holder if plain and known else None


def _told(holder: Holder | None, name: str) -> str:
    if holder is None:
        return f"a lease that cannot be read, {FOLDER}/{name}"
    return f"genodl {holder.verb} on {holder.host}, process {holder.pid}, since {holder.since} ({FOLDER}/{name})"


def _remove(fs: pafs.FileSystem, path: str) -> None:
    with contextlib.suppress(OSError):  # another run was faster, or the lake has become unreachable: then it expires
        fs.delete_file(path)


def _absent(fs: pafs.FileSystem, path: str) -> list[str]:
    """The folder and those above it that are not there, the innermost first."""
    found = []
    while path and posixpath.dirname(path) != path and fs.get_file_info(path).type == pafs.FileType.NotFound:
        found.append(path)
        path = posixpath.dirname(path)
    return found


def _read_only(error: OSError) -> bool:
    return isinstance(error, PermissionError) or error.errno == errno.EROFS or "ACCESS_DENIED" in str(error)


def _machine() -> str:
    """What tells process numbers of one kernel and one container from others; empty where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as stream:
        return f"{stream.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _began(pid: int) -> str:
    """When a process started, in ticks since boot; empty where there is none, or it is a zombie."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat") as stream:
            fields = stream.read().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    return ""
