"""Files and leases on S3, by pyarrow alone."""

from __future__ import annotations

import uuid

import pytest

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.lake import locks


def test_files_and_folders(store: str) -> None:
    lake = "s3a://lakes/a lake, 100% odd"
    storage.make_directory(lake)
    assert storage.kind(lake) == "absent" and storage.files_under(lake) == []
    storage.write_bytes(f"{lake}/t/a=1 2/x", b"one")
    storage.write_bytes(f"{lake}/t/a=1 2/x", b"another")
    storage.write_json(f"{lake}/t/y.json", {"a": 1})
    assert storage.kind(lake) == storage.kind(f"{lake}/t") == "directory" and storage.folders(lake) == ["t"]
    assert storage.read_bytes(f"{lake}/t/a=1 2/x") == b"another" and storage.size(f"{lake}/t/a=1 2/x") == 7
    assert storage.files_under(lake) == [f"{lake}/t/a=1 2/x", f"{lake}/t/y.json"]
    assert storage.files_under(lake, ".json") == [uri for uri, _, _ in storage.listing(lake)][1:]
    storage.remove_file(f"{lake}/t/y.json")
    assert storage.kind(f"{lake}/t/y.json") == "absent"
    there = {name: storage.is_file(f"{lake}/{name}") for name in ("t/a=1 2/x", "t/y.json", "t", "t/")}
    assert there == {"t/a=1 2/x": True, "t/y.json": False, "t": False, "t/": False}
    for name in ("t/y.json", "t"):
        with pytest.raises(InputError, match="no such file"):
            storage.read_bytes(f"{lake}/{name}")
    storage.remove_directory(f"{lake}/t")
    assert storage.files_under(lake) == []
    assert storage.filesystem("s3://lakes/x")[0] is storage.filesystem(lake)[0]  # one client


def test_leases(store: str) -> None:
    lake = "s3a://lakes/leases"
    storage.write_bytes(f"{lake}/t/x", b"")

    def held(verb: str, exclusive: bool = False) -> object:
        return locks.held(lake, verb, uuid.uuid4().hex, exclusive, wait=1.0)

    found = r"found genodl (ingest|predict) on "
    with held("ingest"), held("predict"), pytest.raises(Conflict, match=found), held("forget", exclusive=True):
        pass
    with held("forget", exclusive=True) as lease:
        assert lease.since is not None
        with pytest.raises(Conflict, match="found genodl forget on "), held("ingest"):
            pass
        lease.check()
        # Another run takes the lease away, as of a process that is dead.
        storage.remove_file(f"{lake}/_locks/{lease._name}")
        lease._renew()
        with pytest.raises(Conflict, match="has lost its lease"):
            lease.check()
    assert storage.files_under(f"{lake}/_locks") == []


def test_a_lease_that_is_not_renewed_expires(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "EXPIRE", 1.5)
    monkeypatch.setattr(locks, "RENEW", 0.4)
    lake = "s3a://lakes/expired"
    left = f"{lake}/_locks/writing-{uuid.uuid4().hex}.json"
    storage.write_bytes(left, b"{}")  # of a run on another machine
    with locks.held(lake, "forget", uuid.uuid4().hex, exclusive=True, wait=30.0):
        assert storage.kind(left) == "absent"
