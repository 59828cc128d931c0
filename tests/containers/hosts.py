"""The services of docker/compose.yaml without an engine: each has an image's files as its root, read-only but for the
places that are its own, a host of its own (a network namespace), a name that the others know it by, and no rights."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.harness import _end
from tests.containers import compose
from tests.faults.hosts import Host, hosts

_WRITABLE = ("/tmp", "/home/genodl", "/srv/genodl", "/srv/incoming", "/srv/results", "/dev/shm")
_USER = "185:185"
_GIVEN = {"HOME": "/home/genodl", "TINI_SUBREAPER": "1"}  # as an engine has it; tini is not the first process here
# Of a new mount namespace: own places over those of the image, then nothing but them can be written.
_ENTER = """
set -e
root=$1 name=$2 folder=$3 mounts=$4
shift 4
hostname "$name"
mount --make-rprivate /
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while IFS=: read -r from to options; do
    mount --rbind "$from" "$root$to"
done <"$mounts"
mount -o remount,bind,ro "$root"
exec chroot --userspec=185:185 "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
"""


@dataclass(frozen=True)
class Image:
    """A root, and what an image says of how it is run."""

    root: Path
    entrypoint: list[str]
    environment: dict[str, str]
    extra: dict[Path, str] = field(default_factory=dict)  # folders of this machine, and where they are seen


@dataclass
class Running:
    name: str
    image: Image
    host: Host
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, command: list[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a command where the service is."""
        enter = ["nsenter", "--target", str(self.process.pid), "--mount", "--net", "--uts"]
        inside = ["chroot", f"--userspec={_USER}", str(self.image.root), "env", "-i"]
        given = [f"{name}={value}" for name, value in {**self.image.environment, **_GIVEN}.items()]
        there = ["sh", "-c", 'cd /srv/genodl && exec "$@"', "sh"]
        return subprocess.run(
            [*enter, *inside, *given, *there, *command], capture_output=True, text=True, timeout=timeout, check=False
        )

    def said(self) -> str:
        return f"{self.name}:\n{self.log.read_text(errors='replace')[-6000:]}"


class Machine:
    """Services side by side. `folder` holds volumes, logs and places of their own."""

    def __init__(self, services: Mapping[str, dict[str, Any]], images: Mapping[str, Image], folder: Path) -> None:
        self.services = {name: one for name, one in services.items() if compose.target(one) in images}
        self.images = images
        self.folder = folder
        self.running: dict[str, Running] = {}
        self._left: contextlib.ExitStack = contextlib.ExitStack()
        self._hosts: dict[str, Host] = {}

    @contextlib.contextmanager
    def up(self) -> Iterator[Machine]:
        """A host for each service within the block; what was started is ended on leaving."""
        names_of_hosts = [*self.services, "stranger"]
        with contextlib.ExitStack() as left, hosts(len(names_of_hosts)) as made:
            self._hosts = dict(zip(names_of_hosts, made, strict=True))
            names = "".join(f"{host.address} {name}\n" for name, host in self._hosts.items())
            (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
            self._left = left
            left.callback(self._end_all)
            yield self

    def _end_all(self) -> None:
        """What has left its service's process group, too."""
        for host in self._hosts.values():
            done = subprocess.run(["ip", "netns", "pids", host.name], capture_output=True, text=True, check=False)
            for pid in map(int, done.stdout.split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def start(self, name: str) -> Running:
        service = self.services[name]
        image = self.images[compose.target(service)]
        own = self.folder / name
        mounts = [(self.folder / "hosts", "/etc/hosts"), *((source, at) for source, at in image.extra.items())]
        for place in _WRITABLE:
            mounts.append((own / place.strip("/").replace("/", "-"), place))
        for volume, place in compose.volumes(service).items():
            mounts = [one for one in mounts if one[1] != place] + [(self.folder / "volumes" / volume, place)]
        for source, place in mounts:
            if place in _WRITABLE:
                source.mkdir(parents=True, exist_ok=True)
                os.chown(source, *map(int, _USER.split(":")))
        (own / "mounts").write_text("".join(f"{source}:{place}:\n" for source, place in mounts))
        environment = {**image.environment, **_GIVEN, **service.get("environment", {})}
        given = [f"{variable}={value}" for variable, value in environment.items()]
        inside = ["env", "-i", *given, *image.entrypoint, *service["command"]]
        host = self._hosts[name]
        enter = ["ip", "netns", "exec", host.name, "unshare", "--mount", "--uts", "sh", "-c", _ENTER, "sh"]
        log = own / "log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [*enter, str(image.root), name, "/srv/genodl", str(own / "mounts"), *inside],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        self._left.callback(_end, process)
        self.running[name] = Running(name, image, host, process, log)
        return self.running[name]

    def stop(self, name: str) -> None:
        _end(self.running.pop(name).process)

    def start_with_what_it_needs(self, name: str) -> Running:
        """As compose does: what it depends on first, in the state that it asks for."""
        for other, wanted in self.services[name].get("depends_on", {}).items():
            if other not in self.running:
                self.start_with_what_it_needs(other)
            if wanted["condition"] == "service_completed_successfully":
                self.wait_for_end(other)
            else:
                self.wait_for_health(other)
        return self.start(name)

    def wait_for_end(self, name: str, seconds: float = 600) -> None:
        one = self.running[name]
        code = one.process.wait(seconds)
        assert code == 0, f"exit code {code} of {one.said()}"

    def wait_for_health(self, name: str, seconds: float = 240) -> None:
        """Waits until the service's own check says that it is well."""
        one, check = self.running[name], self.services[name]["healthcheck"]["test"][1:]
        deadline = time.monotonic() + seconds
        while True:
            assert one.process.poll() is None, f"exit code {one.process.returncode} of {one.said()}"
            asked = one.ask(check)
            if asked.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{asked.stderr} after {seconds} s, {one.said()}"
            time.sleep(1)
