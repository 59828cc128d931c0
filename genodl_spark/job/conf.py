"""conf/: where it is, and the tasks that it has."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from genodl_spark.core.errors import InputError


def conf_directory() -> Traversable:
    """conf/ of the checkout, or the copy inside the wheel, which may be a zip on the path (`--py-files`)."""
    inside = resources.files("genodl_spark") / "conf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def task_names() -> list[str]:
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in (conf_directory() / "tasks").iterdir()
        if entry.name.endswith(".toml")
    )


def task_file(task: str) -> Traversable:
    """The TOML of a task named under conf/tasks/ or given as a path. InputError when there is none."""
    if task.endswith(".toml") or "/" in task:
        path = Path(task)
        if not path.is_file():
            raise InputError("no such task file; expected the path of a TOML, or a name under conf/tasks", task)
        return path
    if task not in task_names():
        raise InputError(f"found no task {task!r}; expected {', '.join(task_names())} or the path of a TOML", "TASK")
    return conf_directory() / "tasks" / f"{task}.toml"
