"""Which code a stage runs: a change that it imports changes its hash, and no other change does."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from genodl_spark.core import source_hash
from genodl_spark.job.config import load
from genodl_spark.job.run import code_of

TRAIN, PREDICT, INGEST = (
    ("genodl_spark.pipelines.train", "genodl_spark.tasks.tumor_type"),
    ("genodl_spark.pipelines.predict",),
    ("genodl_spark.formats.vcf.reader",),
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    found = Path(str(resources.files("genodl_spark")))
    return Path(shutil.copytree(found, tmp_path / "genodl_spark", ignore=shutil.ignore_patterns("*.so", "__pycache__")))


def hashes(root: Path) -> tuple[str, ...]:
    return tuple(source_hash.closure_hash(root, modules) for modules in (TRAIN, PREDICT, INGEST))


def other_words(text: str) -> str:
    return '"""Other words."""\n\n# A comment.\n' + text.partition('"""')[2].partition('"""')[2]


def edited(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("file", "change", "moved"),
    [
        ("formats/vcf/reader.py", lambda text: text + "\nADDED = 1\n", (False, False, True)),
        ("report/page.py", lambda text: text + "\nADDED = 1\n", (False, False, False)),
        ("learning/training/group.py", lambda text: text + "\nADDED = 1\n", (True, False, False)),
        ("learning/models/layers.py", lambda text: text.replace("eps = 1e-5", "eps = 1e-6"), (True, True, False)),
        ("tasks/tumor_type.py", lambda text: text + "\nADDED = 1\n", (True, False, False)),
        ("tasks/ancestry.py", lambda text: text + "\nADDED = 1\n", (False, False, False)),
        ("native/kernels.c", lambda text: text + "\n/* more */\n", (True, False, True)),  # shuffles of training rows
        ("core/errors.py", lambda text: text + "\nADDED = 1\n", (True, True, True)),
        ("features/protocol.py", other_words, (False, False, False)),
        (
            "learning/settings.py",
            lambda text: text.replace("Networks of different seeds", "Nets of other seeds"),
            (False, False, False),
        ),
        (
            "learning/settings.py",
            lambda text: text.replace("ensemble: int = Field(5", "ensemble: int = Field(6"),
            (True, True, False),
        ),
        (
            "learning/training/plan.py",
            lambda text: text.replace("\n\n\ndef", "\n\n\n# A comment.\n\n\ndef"),
            (False, False, False),
        ),
    ],
)
def test_a_change_counts_where_it_is_imported(
    copy: Path, file: str, change: Callable[[str], str], moved: tuple[bool, ...]
) -> None:
    before, text = hashes(copy), (copy / file).read_text()
    edited(copy / file, change)
    assert (copy / file).read_text() != text
    assert tuple(a != b for a, b in zip(before, hashes(copy), strict=True)) == moved


def test_a_new_import_brings_its_file_in(copy: Path) -> None:
    late = "\n\ndef f() -> None:\n    from genodl_spark.learning import drift\n\n    drift.f()\n"
    edited(copy / "learning" / "scaling.py", lambda text: text + late)
    before = hashes(copy)
    edited(copy / "learning" / "drift.py", lambda text: text + "\nADDED = 1\n")
    assert [a != b for a, b in zip(before, hashes(copy), strict=True)] == [True, True, False]
    edited(
        copy / "learning" / "splits.py",
        lambda text: text + "\n\nif TYPE_CHECKING:\n    from genodl_spark.report import page\n",
    )
    before = hashes(copy)
    edited(copy / "report" / "page.py", lambda text: text + "\nADDED = 1\n")
    assert before == hashes(copy)


def test_a_zip_on_the_path_has_the_same_hash(copy: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in sorted(copy.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    inside = zipfile.Path(tmp_path / "package.zip", "genodl_spark/")
    assert (
        source_hash.closure_hash(inside, TRAIN)
        == source_hash.closure_hash(copy, TRAIN)
        == source_hash.of_modules(*TRAIN)
    )


def test_task_network_and_own_files_count(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def features(settings): ...\n")
    (tmp_path / "mine.toml").write_text('implementation = "own.py"\n[split]\nfolds = 2\n')
    stage, settings = TRAIN[0], load("tumor_type")
    assert code_of(stage, settings) != code_of(stage, load("ancestry"))
    assert code_of(stage, settings) != code_of(stage, load("tumor_type", None, ["model.kind=autoencoder"]))
    assert code_of(stage, settings) == code_of(stage, load("tumor_type", None, ["covariates=age"]))
    assert code_of(stage, settings) != code_of(stage, load("tumor_type", None, ["covariates=burden:BRCA1:lof"]))
    assert code_of(stage, settings, network=False) == code_of(
        stage, load("tumor_type", None, ["model.kind=autoencoder"]), network=False
    )
    mine = code_of(stage, load(str(tmp_path / "mine.toml")))
    (tmp_path / "own.py").write_text("def features(settings): return 1\n")
    assert len({mine, code_of(stage, load(str(tmp_path / "mine.toml"))), code_of(stage, settings)}) == 3


def test_an_own_loss_counts_for_networks_alone(tmp_path: Path) -> None:
    stage, kinds = TRAIN[0], []
    for text in ("A = 1\n", "A = 2\n"):
        (tmp_path / "loss.py").write_text(text)
        settings = load("tumor_type", None, [f"train.loss={tmp_path / 'loss.py'}"])
        kinds.append((code_of(stage, settings), code_of(stage, settings, network=False)))
    (first, without), (second, without_too) = kinds
    assert first != second and without == without_too == code_of(stage, load("tumor_type"), network=False)
