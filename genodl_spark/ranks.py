"""The processes that train together: how they are started, what they ask of each other, and what each runs on. The only file that imports Horovod."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    import torch
    from pyspark.sql import SparkSession

_SLOT_SECONDS = 120  # that a lost executor's place may take to be filled again
_PATIENT_SECONDS = 20  # of them spent on waiting for as many places as there were
_JOIN_SECONDS = 600  # that ranks wait for each other after one was lost or came
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
Work = Callable[[Any], dict[str, Any]]


def slots_left(spark: SparkSession, wanted: int) -> int:
    """Task slots of the executors that are alive, once they are enough or a while has passed."""
    from genodl_spark.session import live_slots

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

    `alone`, `rank` and `elastic` do the work of a single process, of one of several, and of one of several that may be lost and may
    join; None where a lost rank is to end the others.
    """
    from genodl_spark.session import rank_environment

    # A lost rank must end the others, not leave them waiting.
    stall = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "300"}
    if launcher == "process" or count == 1:
        if launcher == "spark":
            return next(iter(spark.sparkContext.parallelize([job], 1).map(alone).collect()))
        return alone(job)
    with _handlers_kept():
        if launcher == "horovodrun":
            import horovod.runner

            return dict(horovod.runner.run(rank, (job,), num_proc=count, hosts=hosts or None, use_gloo=True, env={**os.environ, **stall})[0])
        import horovod.spark

        local = (spark.sparkContext.master or "").startswith("local")
        env = {**rank_environment(spark), **stall}  # laid over the executors' own environment, so no more than they lack
        # What ranks print is progress: stdout belongs to the run report.
        common: dict[str, Any] = {"num_proc": count, "verbose": 0, "env": env, "stdout": sys.stderr, "stderr": sys.stderr}
        if local or elastic is None:
            python = spark.sparkContext.pythonExec
            return dict(horovod.spark.run(rank, (job,), use_gloo=True, executable=python, nics={"lo"} if local else None, **common)[0])
        return dict(horovod.spark.run_elastic(elastic, (job,), min_num_proc=1, max_num_proc=count, elastic_timeout=_JOIN_SECONDS, **common)[0])


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

        hvd.init()
        self._hvd = hvd
        self.look()

    def look(self) -> None:
        """Takes note of how many ranks there are, after they have changed."""
        self.rank, self.size, self.local_rank, self.local_size = (
            getter() for getter in (self._hvd.rank, self._hvd.size, self._hvd.local_rank, self._hvd.local_size)
        )
        self.changed = False

    def sum(self, values: torch.Tensor, name: str) -> torch.Tensor:
        """Element-wise sum over ranks; it has a gradient."""
        return self._hvd.allreduce(values, op=self._hvd.Sum, name=name)

    def reduce(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """How statistics of a batch are summed over ranks; None where there is one."""
        return (lambda values: self.sum(values, "statistics")) if self.size > 1 else None

    def sum_gradients(self, parameters: list[torch.nn.Parameter], measured: torch.Tensor, compress: bool) -> torch.Tensor:
        """Sums gradients over ranks, in place and in one message; returns the sum of `measured` (n,), which goes along.

        `compress`: gradients travel as float16 (`horovod.torch.Compression.fp16`), `measured` as it is.
        """
        import torch

        if self.size == 1:
            return measured
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        parts = [g.flatten() for g in grads]
        if compress:
            flat = self._hvd.allreduce(torch.cat(parts), op=self._hvd.Sum, name="gradients", compression=self._hvd.Compression.fp16)
            measured = self.sum(measured, "measured")
        else:
            flat = self._hvd.allreduce_(torch.cat([*parts, measured.to(parts[0].dtype)]), op=self._hvd.Sum, name="gradients")
            measured = flat[-len(measured) :]
        for p, g, values in zip(parameters, grads, flat[: sum(map(len, parts))].split([len(part) for part in parts]), strict=True):
            p.grad = g.copy_(values.view_as(g))
        return measured

    def same(self, content: bytes | None) -> bytes | None:
        """What rank 0 has, on every rank."""
        return self._hvd.broadcast_object(content, root_rank=0, name="same")  # by default named after the type, which differs over ranks

    def meet(self) -> None:
        self._hvd.barrier()

    def regroup(self) -> NoReturn:
        """Leaves the work for the ranks to meet anew; called by all of them at the same step. `together` goes on from there."""
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

    def sum_gradients(self, parameters: list[torch.nn.Parameter], measured: torch.Tensor, compress: bool) -> torch.Tensor:
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
    """Does `work` with ranks that may be lost and may join; it is begun again after each change, and goes on from what `join` left."""
    import horovod.torch as hvd
    from horovod.common.elastic import State

    class Together(State):  # type: ignore[misc]
        def on_hosts_updated(self, timestamp: float, update: int) -> None:
            member.ranks.changed = True

        def save(self) -> None:
            pass

        def restore(self) -> None:
            """Nothing is to be undone: weights move only after all ranks have summed their gradients."""

        def sync(self) -> None:
            member.join()

        def reset(self) -> None:
            member.ranks.look()
            member.resets += 1

    member.ranks.elastic = True
    return dict(hvd.elastic.run(lambda state: work())(Together(bcast_object=hvd.broadcast_object, get_rank=hvd.rank)))


def device_of(ranks: Ranks) -> torch.device:
    """The GPU that Spark gave this rank's task, else the one of its place on the machine; the CPU where there is none."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    given: list[str] = []
    if isinstance(ranks, Alone):
        from pyspark import TaskContext

        context = TaskContext.get()
        given = context.resources()["gpu"].addresses if context is not None and "gpu" in context.resources() else []
    else:
        with contextlib.suppress(Exception):  # outside horovod.spark there is nobody to ask
            from horovod.spark.task import get_available_devices

            given = get_available_devices()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
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

    glibc gives large blocks back at once, and touching fresh ones took a fifth of a CNN's step on a CPU. Nothing happens with other C libraries.
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
