"""Files that nobody but their owner may read: secrets, and names with hashes of their passwords.

A file of passwords has a line for each name, `NAME:$scrypt$ln=15,r=8,p=3$SALT$HASH`: scrypt's parameters (`ln` is the
base 2 logarithm of its cost), a salt and a hash of 32 bytes, both Base64 without padding. Other lines are empty or
begin with #. The file is read again for every check, so that a name that was taken out of it is refused at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
import threading
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path

from genodl_spark.core.errors import InputError

_COST, _BLOCK, _LANES, _BYTES = 15, 8, 3, 32  # 32 MiB and a quarter of a second for one hash
_LARGEST = 1 << 20  # bytes of a file
_FEWEST, _MOST = 8, 1024  # bytes of a password
# Thrift's server cuts names at the first / or @, and takes each byte for a character.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LINE = re.compile(
    rf"({NAME.pattern})"
    r":\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{22,86})\$([A-Za-z0-9+/]{43})",
    re.ASCII,
)
_EXPECTED = "expected lines NAME:$scrypt$..., as genodl serve --set-password NAME writes them"


def private_text(path: str) -> str:
    """What a file holds that its owner, who runs this process, alone may read or write.
    InputError of any other file."""
    try:
        # What stands there may be a pipe that nobody writes to.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InputError("found no regular file; expected one that only its owner may read", path)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise InputError(
                    f"found a file of user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}; expected one of "
                    f"user {os.geteuid()} that nobody else may read: chmod 600",
                    path,
                )
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"found no file that can be read ({_reason(error)}); expected one", path) from error
    try:
        if len(content) <= _LARGEST:
            return content.decode()
    except UnicodeDecodeError:
        pass  # the error has bytes of the file in it
    raise InputError(f"found what is no text of at most {_LARGEST} bytes; expected UTF-8", path)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


@dataclass(frozen=True)
class _Hash:
    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: bytes) -> _Hash:
        salt = secrets.token_bytes(16)
        return cls(_COST, _BLOCK, _LANES, salt, _scrypt(password, _COST, _BLOCK, _LANES, salt))

    def is_of(self, password: bytes) -> bool:
        found = _scrypt(password, self.cost, self.block, self.lanes, self.salt)
        return hmac.compare_digest(found, self.digest)

    def __str__(self) -> str:
        salt, digest = (b64encode(part).rstrip(b"=").decode() for part in (self.salt, self.digest))
        return f"$scrypt$ln={self.cost},r={self.block},p={self.lanes}${salt}${digest}"


def _scrypt(password: bytes, cost: int, block: int, lanes: int, salt: bytes) -> bytes:
    memory = 128 * block * ((1 << cost) + lanes + 2)
    return hashlib.scrypt(password, salt=salt, n=1 << cost, r=block, p=lanes, maxmem=memory, dklen=_BYTES)


class Passwords:
    """Names and passwords of a file. InputError where it cannot be read, or others than its owner may read it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._nobody = _Hash(_COST, _BLOCK, _LANES, secrets.token_bytes(16), secrets.token_bytes(_BYTES))
        self._two = threading.BoundedSemaphore(2)  # whoever guesses takes no more memory than that
        if not self._read():
            raise InputError(f"found no name; {_EXPECTED}", path)

    def names(self) -> list[str]:
        return sorted(self._read())

    def accepts(self, name: str, password: bytes) -> bool:
        """Whether a password is the name's. As long for a name that is not in the file as for one that is."""
        stored = self._read().get(name)
        with self._two:
            return (stored or self._nobody).is_of(password) and stored is not None

    def _read(self) -> dict[str, _Hash]:
        return _parsed(private_text(self.path), self.path)


def _parsed(content: str, path: str) -> dict[str, _Hash]:
    hashes: dict[str, _Hash] = {}
    for number, line in enumerate(content.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)  # what is wrong with a line is not told: it may be a password
        if found is None:
            raise InputError(f"found another line; {_EXPECTED}", path, number)
        name, cost, block, lanes = found[1], *(int(found[i]) for i in (2, 3, 4))
        if not (1 <= cost <= 20 and 1 <= block <= 32 and 1 <= lanes <= 16):
            raise InputError("found a cost of scrypt beyond ln=20, r=32 or p=16; expected less", path, number)
        if name in hashes:
            raise InputError(f"found {name} a second time; expected each name once", path, number)
        salt, digest = (b64decode(text + "=" * (-len(text) % 4)) for text in (found[5], found[6]))
        hashes[name] = _Hash(cost, block, lanes, salt, digest)
    return hashes


def set_password(path: str, name: str, password: str) -> None:
    """Gives a name of a file another password, or adds it; makes the file where there is none."""
    if not NAME.fullmatch(name):
        raise InputError("found another name; expected up to 64 letters, digits, points, _ and -", "--set-password")
    given = password.encode(errors="surrogateescape")
    if not _FEWEST <= len(given) <= _MOST or b"\0" in given:
        raise InputError(f"found a password of {len(given)} bytes; expected {_FEWEST} to {_MOST}, no NUL", "password")
    lines: list[str] = []
    if os.path.lexists(path):
        content = private_text(path)
        _parsed(content, path)
        lines = [line for line in content.splitlines() if line.strip().partition(":")[0] != name]
    text = "".join(f"{line}\n" for line in [*lines, f"{name}:{_Hash.of(given)}"])
    try:
        # Through a link to where it leads; a reader finds the lines of before, or these. The mode is 600.
        whole = Path(path).resolve()
        descriptor, written = tempfile.mkstemp(dir=whole.parent, prefix=f".{whole.name}-")
        try:
            with open(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(written, whole)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(written)
            raise
    except OSError as error:
        raise InputError(f"found no place for it ({_reason(error)}); expected a folder to write to", path) from error
