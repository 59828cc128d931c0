"""Files that only their owner may read: names with hashes of their passwords, and secrets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from genodl_spark.core import passwords
from genodl_spark.core.errors import InputError
from genodl_spark.core.passwords import Passwords, private_text, set_password


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_COST", 4)


def private(path: Path, content: str) -> str:
    path.write_text(content)
    path.chmod(0o600)
    return str(path)


def test_names_and_their_passwords(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_password(str(path), "ana", "first of ana")
    set_password(str(path), "bob.2_x-y", "pässwörd of bob")
    private(path, f"# of the lake\n\n{path.read_text()}")
    asked = Passwords(str(path))
    assert asked.names() == ["ana", "bob.2_x-y"]
    assert asked.accepts("ana", b"first of ana") and asked.accepts("bob.2_x-y", "pässwörd of bob".encode())
    for name, password in (("ana", b"first of an"), ("ana", b""), ("bob", b"first of ana"), ("", b""), ("Ana", b"x")):
        assert not asked.accepts(name, password)
    set_password(str(path), "ana", "second of ana")  # holds at once
    assert asked.accepts("ana", b"second of ana") and not asked.accepts("ana", b"first of ana")
    assert path.read_text().startswith("# of the lake\n") and path.read_text().count("ana:") == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["passwords"]


def test_a_line_is_of_scrypt_as_others_write_it(tmp_path: Path) -> None:
    """By the second test vector of RFC 7914, of which the first 32 bytes are those of a shorter key."""
    digest = "/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI"
    path = private(tmp_path / "p", f"rfc:$scrypt$ln=10,r=8,p=16$TmFDbGFOYUNsYU5hQ2xhTmFD${digest}\n")
    with pytest.raises(InputError, match="found another line"):
        Passwords(private(tmp_path / "q", f"rfc:$scrypt$ln=10,r=8,p=16$TmFDbA${digest}\n"))  # the RFC's own salt
    assert not Passwords(path).accepts("rfc", b"password")
    found = passwords._Hash(10, 8, 16, b"NaCl", passwords.b64decode(digest + "="))
    assert found.is_of(b"password") and not found.is_of(b"Password")


def test_the_same_work_for_a_name_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "passwords"
    set_password(str(path), "ana", "password of ana")
    asked, done, scrypt = Passwords(str(path)), [], passwords._scrypt

    def counted(password: bytes, *parameters: object) -> bytes:
        done.append(parameters[:3])
        return scrypt(password, *parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(passwords, "_scrypt", counted)
    for name in ("ana", "eve"):
        assert not asked.accepts(name, b"guessed")
    assert done == [(4, 8, 3)] * 2


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "found no name"),
        ("ana:plain password\n", "p:1: found another line; expected lines NAME:"),
        ("\nana:$scrypt$ln=25,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$" + 43 * "A", "p:2: found a cost of scrypt beyond ln=20"),
        (2 * ("ana:$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$" + 43 * "A" + "\n"), "p:2: found ana a second time"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: str, found: str) -> None:
    with pytest.raises(InputError) as raised:
        Passwords(private(tmp_path / "p", content))
    assert found in str(raised.value) and "plain password" not in str(raised.value)


def test_who_else_may_read_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p"
    private(path, "secret\n")
    assert private_text(str(path)) == "secret\n"
    for mode in (0o644, 0o640, 0o602, 0o604):
        path.chmod(mode)
        with pytest.raises(InputError, match=f"with mode {mode:o}; expected one of user"):
            private_text(str(path))
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        with pytest.raises(InputError, match="found a file of user 12345"):
            private_text(str(path))
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, found in (("pipe", "no regular file"), ("nothing", "No such file"), ("a\0b", "ValueError")):
        with pytest.raises(InputError, match=found):
            private_text(str(tmp_path / name))
    path = tmp_path / "bytes"
    path.write_bytes(b"\xffsecret")
    path.chmod(0o600)
    with pytest.raises(InputError, match="found what is no text") as raised:
        private_text(str(path))
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "password", "found"),
    [
        ("a b", "long enough", "--set-password: found another name"),
        ("a@b", "long enough", "--set-password: found another name"),
        ("a", "short", "password: found a password of 5 bytes"),
        ("a", "nul\0 in the middle", "no NUL"),
    ],
)
def test_what_is_no_password(tmp_path: Path, name: str, password: str, found: str) -> None:
    with pytest.raises(InputError) as raised:
        set_password(str(tmp_path / "p"), name, password)
    assert found in str(raised.value) and password not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
