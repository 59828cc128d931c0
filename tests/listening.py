"""Which addresses a process and all that it has started listen on, as the kernel tells."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"
_LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


def _family(root: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, more = {root}, {root}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found
        found |= more
    return found


def listeners(pids: set[int]) -> set[tuple[str, str]]:
    """Listening sockets of processes: command, and ADDRESS:PORT in the kernel's hexadecimal."""
    addresses = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                addresses[f"socket:[{fields[9]}]"] = fields[1]
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if (address := addresses.get(os.readlink(link))) is not None:
                        found.add((command, address))
    return found


@contextlib.contextmanager
def watched(root: int) -> Iterator[tuple[set[str], set[tuple[str, str]]]]:
    """Within, looks twenty times a second; yields the loopback ports seen, and whatever listens beyond loopback.

    What `root` itself had open before does not count: Horovod's own launcher leaves a socket
    in the process of the tests that use it.
    """
    earlier = listeners({root})
    inside: set[str] = set()
    beyond: set[tuple[str, str]] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for command, address in listeners(_family(root)):
                if address.rpartition(":")[0] in _LOOPBACK:
                    inside.add(address)
                elif (command, address) not in earlier:
                    beyond.add((command, address))
            time.sleep(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield inside, beyond
    finally:
        ended.set()
        thread.join()
