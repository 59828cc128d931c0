"""Images without a container engine: buildah builds the Dockerfile in a chroot, on a Debian that mmdebstrap makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.cluster.harness import ROOT

# Images are kept here from run to run; removing it starts anew.
STORAGE = Path(os.environ.get("GENODL_IMAGES", "/var/tmp/genodl-images"))
_BASE = "docker.io/library/debian:bookworm-slim"
_NEEDED = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "ip": "iproute2", "nsenter": "util-linux"}


def lacking() -> str | None:
    """Why this machine cannot build images, None where it can."""
    if os.geteuid() != 0:
        return "images need root"
    packages = [package for program, package in _NEEDED.items() if shutil.which(program) is None]
    return f"found no {', '.join(packages)}: apt-get install {' '.join(packages)}" if packages else None


@cache
def _options() -> list[str]:
    """Where images are kept, and how: a copy for each layer where the kernel lays none over another."""
    places = ["--root", str(STORAGE / "storage"), "--runroot", str(STORAGE / "run")]
    for driver in ("overlay", "vfs"):
        options = [*places, "--storage-driver", driver]
        if subprocess.run(["buildah", *options, "images"], capture_output=True, check=False).returncode == 0:
            return options
    raise AssertionError(f"buildah can keep no images in {STORAGE}")


def buildah(*arguments: str, timeout: float = 120) -> str:
    """Standard output; AssertionError with what it said where it failed."""
    done = subprocess.run(
        ["buildah", *_options(), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"buildah {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


def base() -> None:
    """The image that the Dockerfile starts from, under the name that it has there, of Debian's own packages."""
    if _BASE in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    STORAGE.mkdir(parents=True, exist_ok=True)
    archive = STORAGE / "debian.tar"
    made = ["mmdebstrap", "--variant=minbase", "--quiet", "bookworm", str(archive)]
    subprocess.run(made, check=True, capture_output=True, timeout=600)
    container = buildah("from", "scratch")
    buildah("add", container, str(archive), "/")
    buildah("config", "--cmd", "bash", container)
    buildah("commit", "--rm", container, _BASE, timeout=300)
    archive.unlink()


def build(target: str) -> str:
    """A stage of the Dockerfile as an image, which is made again where it is not of this checkout's files."""
    base()
    options = ["--layers", "--isolation", "chroot", "--network", "host", "--format", "docker"]
    certificates = os.environ.get("SSL_CERT_FILE")
    if certificates:
        options += ["--secret", f"id=certificates,src={certificates}"]
    name = f"genodl:{target}"
    buildah("bud", *options, "--file", "docker/Dockerfile", "--target", target, "--tag", name, ".", timeout=3600)
    return name


def root_of(image: str) -> Path:
    """The folder in which an image's files lie."""
    return Path(buildah("mount", buildah("from", "--pull-never", image, timeout=600)))
