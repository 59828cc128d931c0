"""The processes that train together: how they are started, what they ask of each other, and what each runs on.
The only file that imports Horovod."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import platform
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from genodl_spark.core.errors import InputError

if TYPE_CHECKING:
    import torch
    from pyspark.sql import SparkSession

_SLOT_SECONDS = 120  # that a lost executor's place may take to be filled again
_PATIENT_SECONDS = 20  # of them spent on waiting for as many places as there were
_JOIN_SECONDS = 600  # that ranks wait for each other after one was lost or came
_MEET_SECONDS = (
    45  # for all to connect once each has its number; of them 30 for the last one's address (Gloo's timeout)
)
_LOOPBACK = "127.0.0.1"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
Work = Callable[[Any], dict[str, Any]]


def slots_left(spark: SparkSession, wanted: int) -> int:
    """Task slots of the executors that are alive, once they are enough or a while has passed."""
    from genodl_spark.core.session import live_slots

    started = time.monotonic()
    while (found := live_slots(spark)) < 1 or (found < wanted and time.monotonic() < started + _PATIENT_SECONDS):
        if time.monotonic() > started + _SLOT_SECONDS:
            raise RuntimeError(f"no executor is left after {_SLOT_SECONDS} s")
        time.sleep(1)
    return max(found, 1)


def start_ranks(
    spark: SparkSession, launcher: str, hosts: str, count: int, alone: Work, rank: Work, elastic: Work | None, job: Any
) -> dict[str, Any]:
    """Runs a job on `count` processes at once; returns what rank 0 returned.

    `alone`, `rank` and `elastic` do the work of a single process, of one of several, and of one of several that may
    be lost and may join; None where a lost rank is to end the others.
    """
    from genodl_spark.core.session import rank_environment

    # A lost rank must end the others, not leave them waiting.
    environment = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "300"}
    if launcher == "process" or count == 1:
        if launcher == "spark":
            return next(iter(spark.sparkContext.parallelize([job], 1).map(alone).collect()))
        return alone(job)
    if launcher == "horovodrun":
        return _on_hosts(hosts or f"localhost:{count}", count, environment, (rank, job))
    environment |= rank_environment(spark)  # laid over the executors' own, so no more than they lack
    if (spark.sparkContext.master or "").startswith("local"):
        return _on_this_machine(spark, count, environment, (rank, job))
    import horovod.spark

    # What ranks print is progress: stdout belongs to the run report.
    common: dict[str, Any] = {
        "num_proc": count,
        "verbose": 0,
        "env": environment,
        "stdout": sys.stderr,
        "stderr": sys.stderr,
    }
    with _handlers_kept(), _found_at(spark.sparkContext.getConf().get("spark.driver.host", "") or ""):
        if elastic is None:
            return dict(
                horovod.spark.run(rank, (job,), use_gloo=True, executable=spark.sparkContext.pythonExec, **common)[0]
            )
        with _started_with(spark.sparkContext.pythonExec):
            return dict(
                horovod.spark.run_elastic(
                    elastic, (job,), min_num_proc=1, max_num_proc=count, elastic_timeout=_JOIN_SECONDS, **common
                )[0]
            )


def _on_this_machine(
    spark: SparkSession, count: int, environment: dict[str, str], work: tuple[Work, Any]
) -> dict[str, Any]:
    """A rank in each of `count` Spark tasks of a local session. Horovod's own services for Spark
    would listen on every address."""
    python = spark.sparkContext.pythonExec

    def task(given: dict[str, str]) -> bytes:
        return _result(_started([python], "", given, environment, work))

    with _rendezvous(f"localhost:{count}", count, _LOOPBACK) as ranks:
        # A failing task ends the job, and the job's end the other tasks.
        return dict(
            pickle.loads(spark.sparkContext.parallelize([given for _, given in ranks], count).map(task).collect()[0])
        )


def _on_hosts(hosts: str, count: int, environment: dict[str, str], work: tuple[Work, Any]) -> dict[str, Any]:
    """Ranks as `horovodrun` places them on `hosts` (a:4,b:4): processes here, and through ssh on other
    machines, in the same folder.

    Work, environment and results go through the processes' standard streams: Horovod's own launcher has the whole
    environment on command lines, and serves the work, pickled, to whoever asks. InputError for fewer places than ranks.
    """
    from horovod.runner.common.util.env import is_exportable
    from horovod.runner.util.network import filter_local_addresses

    remote = filter_local_addresses([host.partition(":")[0] for host in hosts.split(",")])
    exported = {key: value for key, value in os.environ.items() if is_exportable(key)}
    started = []
    with _rendezvous(hosts, count, _address_towards(remote[0]) if remote else _LOOPBACK) as ranks:
        try:
            for host, given in ranks:
                away = host if host in remote else ""
                started.append(
                    _started([sys.executable], away, given, {**exported, **environment} if away else environment, work)
                )
            with ThreadPoolExecutor(count) as pool:
                results = [pool.submit(_result, process) for process in started]
                try:
                    for done in as_completed(results):
                        done.result()
                except BaseException:
                    for process in started:
                        process.kill()
                    raise
                return dict(pickle.loads(results[0].result()))
        finally:
            for process in started:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _rendezvous(hosts: str, count: int, address: str) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """The store where ranks tell each other where they listen, on one address of this machine;
    yields each rank's host and environment.

    It asks nobody for a password. On loopback it answers processes of this user alone.
    """
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.gloo_run import create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Server(RendezvousHTTPServer):  # type: ignore[misc]
        def verify_request(self, request: Any, client_address: Any) -> bool:
            return address != _LOOPBACK or _user_of(client_address) == os.getuid()

    try:
        slots = get_host_assignments(parse_hosts(hosts), count, count)
    except ValueError:
        raise InputError(
            f"found places for fewer than {count} ranks in {hosts!r}; expected one per rank, such as a:4,b:4",
            "train.hosts",
        ) from None
    server = Server((address, 0), RendezvousHandler, 0)
    server.init(slots)
    thread = threading.Thread(target=server.serve_forever, name="rendezvous", daemon=True)
    thread.start()
    found = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": address, "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.server_address[1])}
    found |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
    try:
        yield [(slot.hostname, {**found, **create_slot_env_vars(slot)}) for slot in slots]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _user_of(client: tuple[str, int]) -> int | None:
    """Number of the user whose process holds this end of a connection on loopback;
    None where the system does not tell."""
    here = f"{socket.inet_aton(client[0])[::-1].hex().upper()}:{client[1]:04X}"
    for name in ("tcp", "tcp6"):  # of tcp6 the last four bytes of the address
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as lines:
            for fields in map(str.split, lines):
                if fields[1].endswith(here):
                    return int(fields[7])
    return None


def _address_towards(host: str) -> str:
    """This machine's address on the way to another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


_BOOT = (
    "import os, pickle, sys; os.environ.update(pickle.load(sys.stdin.buffer)); "
    "sys.path[:0] = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep)); "
    "from genodl_spark.learning.training.ranks import take_part; take_part()"
)


def _started(
    python: list[str], host: str, given: dict[str, str], environment: dict[str, str], work: tuple[Work, Any]
) -> subprocess.Popen[bytes]:
    """A rank's process, on this machine or through ssh on `host`, that has been told what to do;
    it ends when its standard input does."""
    import cloudpickle

    command = [*python, "-P", "-c", _BOOT]
    if host:
        command = ["ssh", "-o", "BatchMode=yes", host, f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its exit code says why
        process.stdin.write(pickle.dumps({**environment, **given}) + cloudpickle.dumps(work))
        process.stdin.flush()
    return process


def _result(process: subprocess.Popen[bytes]) -> bytes:
    """What a rank gives back, pickled, once it has ended: empty of all but rank 0. RuntimeError where it failed."""
    assert process.stdout is not None
    found = process.stdout.read()
    if code := process.wait():
        raise RuntimeError(f"a rank ended with exit code {code}")
    return found


def take_part() -> None:
    """The life of a rank's process: work from standard input, what rank 0 returns to standard output,
    and its end with whoever started it."""
    results: IO[bytes] = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what ranks print is progress
    work, job = pickle.load(sys.stdin.buffer)

    def end_with_parent() -> None:
        os.read(0, 1)  # nothing comes any more but the end
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    found = work(job)
    with results:
        if os.environ["HOROVOD_RANK"] == "0":
            pickle.dump(found, results)


def _listen_towards_driver() -> None:
    """Has this rank talk to others by the interface that leads to the driver, whichever Horovod has chosen for all."""
    nic = _interface_of(_address_towards(os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"]))
    if nic is not None:
        os.environ |= {"HOROVOD_GLOO_IFACE": nic, "NCCL_SOCKET_IFNAME": nic}


@contextlib.contextmanager
def _started_with(python: str) -> Iterator[None]:
    """Elastic Horovod starts ranks with the interpreter of the driver, at a path that nodes may lack:
    within, it takes the executors' own for that."""
    kept, sys.executable = sys.executable, python
    try:
        yield
    finally:
        sys.executable = kept


@contextlib.contextmanager
def _found_at(driver: str) -> Iterator[None]:
    """Horovod tells ranks the driver's address on an interface by which tasks reach each other, a loopback where these
    are of one host. Within, it is that by which executors know the `driver`, where this machine has such an address."""
    from horovod.spark.driver.driver_service import SparkDriverService

    kept, nic = SparkDriverService.get_common_interfaces, None
    with contextlib.suppress(OSError):  # a name that executors alone know
        nic = _interface_of(socket.gethostbyname(driver))
    if nic is not None:
        SparkDriverService.get_common_interfaces = lambda _: {nic}
    try:
        yield
    finally:
        SparkDriverService.get_common_interfaces = kept


def _interface_of(address: str) -> str | None:
    """The name of this machine's interface that has an address; None where none has."""
    import psutil

    return next(
        (name for name, known in psutil.net_if_addrs().items() if any(a.address == address for a in known)), None
    )


def _sockets() -> frozenset[tuple[int, int]]:
    """File numbers and inodes of this process's sockets of TCP."""
    import psutil

    found = set()
    for link in psutil.Process().net_connections("tcp"):
        with contextlib.suppress(OSError):
            found.add((link.fd, os.fstat(link.fd).st_ino))
    return frozenset(found)


def _shut(sockets: frozenset[tuple[int, int]]) -> None:
    """Whoever waits for such a socket, here or at its other end, is told that nothing comes any more."""
    for number, inode in sockets:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as link:
            if os.fstat(link.fileno()).st_ino == inode:  # else it is closed, and the number another file's
                link.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Horovod's launcher puts handlers of its own on SIGINT and SIGTERM and leaves them there, deaf to both."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class Ranks:
    """What the loop asks of Horovod."""

    elastic = False
    changed = False  # ranks were lost or are there to join: told by a thread of Horovod's

    def __init__(self) -> None:
        import horovod.torch as hvd

        _listen_towards_driver()
        self._hvd = hvd
        self._meet()
        self.look()

    def meet_anew(self) -> None:
        """Joins the ranks that there are now, after some were lost or came."""
        self._hvd.shutdown()
        self._meet()

    def _meet(self) -> None:
        before = _sockets()
        # For a rank that was lost after the others were told of it Gloo would wait five times as long.
        waited = threading.Timer(_MEET_SECONDS, lambda: _shut(_sockets() - before))
        waited.daemon = True
        waited.start()
        try:
            self._hvd.init()
        finally:
            waited.cancel()
        self._links = _sockets() - before

    def hang_up(self) -> None:
        """Ends this rank's connections with the others, so that they learn at once that it has given up.

        Gloo leaves connections open after an error: who waits for a rank that saw another one die waits 30 s for it.
        """
        _shut(self._links)

    def look(self) -> None:
        """Takes note of how many ranks there are, after they have changed."""
        self.rank, self.size, self.local_rank, self.local_size = (
            getter() for getter in (self._hvd.rank, self._hvd.size, self._hvd.local_rank, self._hvd.local_size)
        )
        self.changed = False

    def sum(self, values: torch.Tensor, name: str) -> torch.Tensor:
        """Element-wise sum over ranks; it has a gradient."""
        return self._hvd.allreduce(values, op=self._hvd.Sum, name=name)

    def all(self, values: np.ndarray, name: str) -> np.ndarray:
        """What every rank has, (n, ...), one after the other: any n, the same otherwise."""
        import torch

        found: np.ndarray = self._hvd.allgather(torch.from_numpy(np.ascontiguousarray(values)), name=name).numpy()
        return found

    def reduce(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """How statistics of a batch are summed over ranks; None where there is one."""
        return (lambda values: self.sum(values, "statistics")) if self.size > 1 else None

    def sum_gradients(
        self, parameters: list[torch.nn.Parameter], measured: torch.Tensor, compress: bool
    ) -> torch.Tensor:
        """Sums gradients over ranks, in place and in one message; returns the sum of `measured` (n,), which goes along.

        `compress`: gradients travel as float16 (`horovod.torch.Compression.fp16`), `measured` as it is.
        """
        import torch

        if self.size == 1:
            return measured
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        parts = [g.flatten() for g in grads]
        if compress:
            flat = self._hvd.allreduce(
                torch.cat(parts), op=self._hvd.Sum, name="gradients", compression=self._hvd.Compression.fp16
            )
            measured = self.sum(measured, "measured")
        else:
            flat = self._hvd.allreduce_(
                torch.cat([*parts, measured.to(parts[0].dtype)]), op=self._hvd.Sum, name="gradients"
            )
            measured = flat[-len(measured) :]
        for p, g, values in zip(
            parameters, grads, flat[: sum(map(len, parts))].split([len(part) for part in parts]), strict=True
        ):
            p.grad = g.copy_(values.view_as(g))
        return measured

    def same(self, content: bytes | None) -> bytes | None:
        """What rank 0 has, on every rank."""
        # by default named after the type, which differs over ranks
        return self._hvd.broadcast_object(content, root_rank=0, name="same")

    def meet(self) -> None:
        self._hvd.barrier()

    def regroup(self) -> NoReturn:
        """Leaves the work for the ranks to meet anew; called by all of them at the same step.
        `together` goes on from there."""
        from horovod.common.exceptions import HostsUpdatedInterrupt

        raise HostsUpdatedInterrupt(skip_sync=False)

    def end(self) -> None:
        self._hvd.shutdown()


class Alone(Ranks):
    """One process without Horovod."""

    def __init__(self) -> None:
        self.rank, self.size, self.local_rank, self.local_size = 0, 1, 0, 1

    def sum(self, values: torch.Tensor, name: str) -> torch.Tensor:
        return values

    def all(self, values: np.ndarray, name: str) -> np.ndarray:
        return values

    def sum_gradients(
        self, parameters: list[torch.nn.Parameter], measured: torch.Tensor, compress: bool
    ) -> torch.Tensor:
        return measured

    def same(self, content: bytes | None) -> bytes | None:
        return content

    def meet(self) -> None:
        pass

    def end(self) -> None:
        pass


class Member(Protocol):
    """What ranks that may be lost and may join have of each other's work."""

    ranks: Ranks
    resets: int

    def join(self) -> None:
        """Takes the state of rank 0: called by all ranks at the start, and after each change of ranks."""


def together(member: Member, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Does `work` with ranks that may be lost and may join; it is begun again after each change,
    and goes on from what `join` left."""
    import horovod.torch as hvd
    from horovod.common.elastic import State, run_fn

    class Together(State):  # type: ignore[misc]
        def on_hosts_updated(self, timestamp: float, update: int) -> None:
            member.ranks.changed = True

        def save(self) -> None:
            pass

        def restore(self) -> None:
            """Called where ranks were lost. Nothing is to be undone: weights move only after all ranks have summed
            their gradients."""
            member.ranks.hang_up()

        def sync(self) -> None:
            member.join()

        def reset(self) -> None:
            member.ranks.look()
            member.resets += 1

    member.ranks.elastic = True
    begun_again = run_fn(lambda state: work(), member.ranks.meet_anew)
    return dict(begun_again(Together(bcast_object=hvd.broadcast_object, get_rank=hvd.rank)))


def device_of(ranks: Ranks) -> torch.device:
    """The GPU that Spark gave this rank's task, else the one of its place on the machine;
    the CPU where there is none."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    given: list[str] = []
    if isinstance(ranks, Alone):
        spark = sys.modules.get("pyspark")  # a process that has not loaded it is none of its tasks
        context = spark.TaskContext.get() if spark is not None else None
        given = context.resources()["gpu"].addresses if context is not None and "gpu" in context.resources() else []
    else:
        with contextlib.suppress(Exception):  # outside horovod.spark there is nobody to ask
            from horovod.spark.task import get_available_devices

            given = get_available_devices()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It fills new memory with NaN otherwise, a pass over each tensor, to show who reads what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cuda", int(given[0]) if given else ranks.local_rank % torch.cuda.device_count())


def hardware(device: torch.device) -> dict[str, str]:
    """What a rank ran on, as its system names it."""
    import torch

    found = {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": platform.processor() or platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
    if device.type == "cuda":
        return {**found, "gpu": torch.cuda.get_device_name(device)}
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as lines:
        found["processor"] = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return found


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Within, what a step frees stays with the process for the next one; at the end it goes back to the system.

    glibc gives large blocks back at once, and touching fresh ones took a fifth of a CNN's step on a CPU.
    Nothing happens with other C libraries.
    """
    library: Any = None
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError):
            library.malloc_trim(0)
            library.mallopt(_M_TRIM_THRESHOLD, 128 << 10)  # glibc's own
            library.mallopt(_M_MMAP_THRESHOLD, 128 << 10)
