"""Several hosts on one machine: network namespaces on a switch, one file system for all. Links get cut and slowed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_SWITCH, _BRIDGE, _PORT = "switch", "bridge", "eth0"


@dataclass(frozen=True)
class Host:
    """A host and the address that others reach it at. `inside`: what to put before a command that is to run there."""

    name: str
    address: str
    switch: str

    @property
    def inside(self) -> list[str]:
        # Its name is its address, which needs no resolver: Horovod tells hosts apart by their names.
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.address]
        return ["ip", "netns", "exec", self.name, *named]

    def cut(self) -> None:
        """Nobody reaches the host from now on, and it reaches nobody: what runs there goes on."""
        self._link("down")

    def mend(self) -> None:
        self._link("up")

    def slow(self, rate: str) -> None:
        """What the host sends and what it is sent goes at `rate` from now on, as tc has it: 2mbit."""
        for place, link in self._ends:
            bucket = ["root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms"]
            _run("tc", "-n", place, "qdisc", "add", "dev", link, *bucket)

    def held_back(self) -> int:
        """Packets that had to wait for that rate, or were dropped for it."""
        shown = "".join(_run("tc", "-n", place, "-s", "qdisc", "show", "dev", link) for place, link in self._ends)
        return sum(map(int, re.findall(r"overlimits (\d+)", shown)))

    @property
    def _ends(self) -> list[tuple[str, str]]:
        return [(self.name, _PORT), (self.switch, self.name)]

    def _link(self, state: str) -> None:
        _ip("-n", self.switch, "link", "set", self.name, state)


def lacking() -> str | None:
    """Why this machine cannot have hosts, None where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(map(shutil.which, ("ip", "tc"))):
        return "found no ip and tc of iproute2"
    name = f"g{os.getpid()}t"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no network namespaces: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts within the block. They see each other alone; this machine's own network sees nothing of them."""
    with contextlib.ExitStack() as made:
        switch = _namespace(made, f"g{os.getpid()}{_SWITCH}")
        _ip("-n", switch, "link", "add", _BRIDGE, "type", "bridge")
        _ip("-n", switch, "link", "set", _BRIDGE, "up")
        found = []
        for number in range(1, count + 1):
            host = Host(_namespace(made, f"g{os.getpid()}h{number}"), f"10.77.0.{number}", switch)
            # Both ends are made where they stay; the switch's has the name of the host.
            _ip("link", "add", host.name, "netns", switch, "type", "veth", "peer", "name", _PORT, "netns", host.name)
            _ip("-n", switch, "link", "set", host.name, "master", _BRIDGE, "up")
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", _PORT)
            for link in ("lo", _PORT):
                _ip("-n", host.name, "link", "set", link, "up")
            found.append(host)
        yield found


def _namespace(made: contextlib.ExitStack, name: str) -> str:
    _ip("netns", "add", name)
    made.callback(_ip, "netns", "delete", name)
    return name


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
