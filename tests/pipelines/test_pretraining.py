"""Networks that learn from FASTA without labels, and others that start from them, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load

from genodl_spark.core import storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import HELD_OUT, MODELS, PREDICTIONS
from genodl_spark.learning import model_files
from genodl_spark.registry.predictions import NOTHING_KNOWN
from jobs import evaluate, explain, ingest, lineage, train, tune
from jobs import predict as predict_job

WORD, COUNT, LENGTH = "TATAATGCAC", 60, 40
OPTIONS = ["model.channels=[8]", "model.dilations=[1,2]", "model.stem_kernel=9", "tracking.uri=off"]
FAST = [*OPTIONS, "train.epochs=3", "train.min_steps=60", "train.batch=32", "train.learning_rate=0.01"]


def sets(*settings: str) -> list[str]:
    return [part for one in settings for part in ("--set", one)]


def written(folder: Path) -> tuple[str, str]:
    """Windows that repeat a word from a place of their own, as FASTA; and others with one, labelled by it."""
    generator = np.random.default_rng(3)
    windows = [(WORD * 6)[shift : shift + LENGTH] for shift in generator.integers(0, len(WORD), COUNT)]
    noisy = ["".join("ACGT"[generator.integers(4)] if generator.random() < 0.1 else b for b in w) for w in windows]
    fasta, table = folder / "windows.fa", folder / "peaks.tsv"
    fasta.write_text("".join(f">w{i:03}\n{bases}\n" for i, bases in enumerate(noisy)) + f">unknown\n{'N' * LENGTH}\n")
    lines = ["id\tsequence\tlabel"]
    for i in range(COUNT):
        bases = "".join("ACGT"[b] for b in generator.integers(0, 4, LENGTH))
        start = generator.integers(0, LENGTH - 10)
        lines.append(f"s{i:03}\t{bases[:start] + WORD + bases[start + 10 :] if i % 2 else bases}\t{i % 2}")
    table.write_text("\n".join(lines) + "\n")
    return str(fasta), str(table)


def test_from_windows_to_a_network_that_starts_from_them(genodl, lake: Lake, tmp_path: Path) -> None:
    at, (fasta, table) = ("--lake", lake.uri, "--procs", "1"), written(tmp_path)
    here = at[:2]
    for path, cohort in ((fasta, "unlabelled"), (table, "peaks")):
        assert genodl(ingest, "sequences", path, "--cohort", cohort, *here)[0] == 0
    task, cohort = "sequence_pretraining", ("--cohort", "unlabelled")
    alike = sets("sequence.alike=0")
    code, report, line = genodl(train, task, *at, *cohort, *sets(*FAST), *alike)
    assert code == 0, line
    model = report["metrics"]["model_id"]
    assert report["warnings"] == [] and "temperature" in report["metrics"]

    code, report, line = genodl(evaluate, task, *here, *cohort, "--set", "evaluate.resamples=50")
    assert code == 0, line
    found = report["metrics"]
    held = {
        (row.predictor, row.entity_id): row.scores[0]
        for row in lake.read(HELD_OUT).where("role = 'test'").collect()
        if not np.isnan(row.scores[0])
    }
    for name, said in (("model", found["model"]), *found["baselines"].items()):
        mean = np.mean([value for (predictor, _), value in held.items() if predictor == name])
        assert said["cross_entropy"]["value"] == pytest.approx(mean)
        assert said["perplexity"]["value"] == pytest.approx(np.exp(mean))
    assert set(found["baselines"]) == {"composition", "markov"} and found["metric"] == "cross_entropy"
    assert found["model"]["cross_entropy"]["value"] < 1.0 < found["baselines"]["composition"]["cross_entropy"]["value"]
    assert found["difference"]["baseline"] == "markov"

    assert genodl(predict_job, task, *here, *cohort)[1]["rows"]["predictions"]["written"] == COUNT + 1
    said = {row.entity_id: row for row in lake.read(PREDICTIONS).collect()}
    assert (said["unknown"].value, said["unknown"].note) == (None, NOTHING_KNOWN)
    for (predictor, entity), value in held.items():
        if predictor == "model":
            assert said[entity].value == pytest.approx(value, abs=1e-6)
    code, _, line = genodl(explain, task, *here, *cohort)
    assert code == 2 and "found a model of rows without labels" in line

    # A network of another task starts from it: another training than one that does not.
    here_too = sets(*OPTIONS, "train.epochs=1", "train.min_steps=0", "train.ensemble=2", "train.learning_rate=1e-12")
    here_too += sets("model.reverse_complement=augment")
    common = ("sequence_class", *at, "--cohort", "peaks", *here_too)
    begins = ("--set", f"train.pretrained={model}")
    plain, started = genodl(train, *common), genodl(train, *common, *begins)
    assert (plain[0], started[0], started[1]["status"]) == (0, 0, "done"), started[2]
    ids = [report["metrics"]["model_id"] for _, report, _ in (plain, started)]
    assert ids[0] != ids[1] and genodl(train, *common, *begins)[1]["status"] == "unchanged"
    theirs, anew, own = (
        load(storage.read_bytes(storage.join(lake.model_uri(one), model_files.WEIGHTS))) for one in (model, *ids)
    )
    assert any(name.startswith("linear.") for name in own)
    for name in ("network.stem.weight", "network.stages.0.1.wide.weight", "network.norm.bias"):
        np.testing.assert_allclose(own[name], theirs[name].expand_as(own[name]), atol=1e-6)
    np.testing.assert_allclose(own["network.head.layers.0.weight"], anew["network.head.layers.0.weight"], atol=1e-6)
    code, report, _ = genodl(lineage, "models", "--key", ids[1], *here)
    assert code == 0 and report["result"][0]["pretrained"]["model_id"] == model
    assert report["result"][0]["pretrained"]["dataset"]["cohort"] == "unlabelled"

    def refused(*settings: str, of: tuple[str, ...] = common) -> str:
        before = lake.read(MODELS).count()
        code, _, line = genodl(train, *of, *sets(*settings))
        assert code == 2 and lake.read(MODELS).count() == before
        return line

    assert "train.pretrained: found no model nobody; expected" in refused("train.pretrained=nobody")
    line = refused(f"train.pretrained={model}", "model.stem_kernel=7")
    assert f"other options than model {model}, stem_kernel 7 for 9; expected --set model.stem_kernel=9" in line
    hiding = (task, *at, *cohort, *sets(*FAST), *alike)
    assert "model.masked: found no share" in refused("model.masked=0", of=hiding)
    searched = ("sequence_class", *here, "--cohort", "peaks", *begins)
    code, _, line = genodl(tune, *searched)
    assert code == 2 and "tune.space: found model.channels, which is as it is in the model" in line
    path = Path(storage.local_path(storage.join(lake.model_uri(model), model_files.WEIGHTS)))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "the file has changed since it was registered" in refused(f"train.pretrained={model}", "seed=3")


def matrix(folder: Path, name: str, genes: list[int], labelled: bool) -> tuple[str, str]:
    """40 samples of some genes, each a mixture of three programs, the first of which tells the class."""
    generator = np.random.default_rng([5, labelled])
    programs = generator.normal(size=(40, 3))
    x = programs @ np.random.default_rng(6).normal(size=(3, 20)) + generator.normal(scale=0.3, size=(40, 20))
    lines = ["gene\t" + "\t".join(f"{name}{i}" for i in range(40))]
    lines += [f"g{j}\t" + "\t".join(f"{v:.4f}" for v in x[:, j]) for j in genes]
    told = [f"{name}{i}\t{'ab'[int(programs[i, 0] > 0)]}" for i in range(40)]
    paths = folder / f"{name}.tsv", folder / f"{name}_samples.tsv"
    paths[0].write_text("\n".join(lines) + "\n")
    told = ["sample_id\tlabel", *told]
    paths[1].write_text("\n".join(told if labelled else [line.split("\t")[0] for line in told]) + "\n")
    return str(paths[0]), str(paths[1])


def test_from_samples_without_labels_to_a_network_of_others(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    for name, genes in (("many", list(range(18))), ("few", [19, 3, *range(4, 18)])):
        values, samples = matrix(tmp_path, name, genes, name == "few")
        assert genodl(ingest, "expression", values, "--samples", samples, "--cohort", name, *at)[0] == 0
    coding = ["model.hidden=[6]", "model.latent=3", "tracking.uri=off", "train.epochs=3", "train.min_steps=10"]
    of = ("--procs", "1", "--cohort")
    code, report, line = genodl(train, "expression_pretraining", *at, *of, "many", *sets(*coding))
    assert code == 0, line
    model = report["metrics"]["model_id"]
    begins = [*coding, "model.kind=autoencoder", f"train.pretrained={model}", "train.learning_rate=1e-12"]
    few = ("tumor_type", *at, *of, "few", *sets(*begins, "split.folds=2", "split.repeats=1", "train.ensemble=1"))
    code, report, line = genodl(train, *few)
    assert code == 0, line
    ids = model, report["metrics"]["model_id"]
    theirs, own = (load(storage.read_bytes(storage.join(lake.model_uri(i), model_files.WEIGHTS))) for i in ids)
    cards = [model_files.registered(lake, i).card().features for i in ids]
    name = "network.encoder.layers.0.weight"
    for place, feature in enumerate(cards[1]):
        if feature in cards[0]:
            np.testing.assert_allclose(own[name][:, place], theirs[name][:, cards[0].index(feature)], atol=1e-6)
    assert set(cards[1]) - set(cards[0]) == {"g19"}
    code, report, _ = genodl(lineage, "models", "--key", ids[1], *at)
    assert code == 0 and report["result"][0]["pretrained"]["model_id"] == model
    code, _, line = genodl(train, *few, *sets("model.latent=4"))
    assert code == 2 and f"other options than model {model}, latent 4 for 3" in line
