"""Files beside the tables: one way to open, list and publish bytes at a local path or any URI.

Spark and Delta reach a lake through Hadoop's filesystems; Python code (readers of input files, ranks,
models) reaches the same places through pyarrow, or through fsspec for schemes that pyarrow does not know.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import stat
import uuid
from functools import lru_cache
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from genodl_spark.core.errors import MEND, Damaged, InputError

_S3_SCHEMES = {"s3", "s3a", "s3n"}
S3_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_S3_IDENTITY = (
    "AWS_ACCESS_KEY_ID",
    *S3_SECRETS,
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)


def absolute(uri: str) -> str:
    """A local path made an absolute `file:///` URI; any other URI as it is, without a trailing slash, and one of S3
    under the name that Spark knows it by, s3a.

    Characters are taken literally on both sides (a blank is a blank, a percent sign a percent sign).
    """
    scheme = _scheme(uri)
    if scheme not in ("", "file"):
        return (f"s3a{uri[len(scheme) :]}" if scheme in _S3_SCHEMES else uri).rstrip("/")
    return "file://" + os.path.abspath(local_path(uri))


def local_path(uri: str) -> str:
    """The path behind a local URI; ValueError for a remote one."""
    if uri.startswith("file:"):
        path = uri[len("file:") :]
        return path[2:] if path.startswith("///") else path
    if _scheme(uri):
        raise ValueError(f"{uri} is not local")
    return uri


def is_local(uri: str) -> bool:
    return _scheme(uri) in ("", "file")


def is_s3(uri: str) -> bool:
    return _scheme(uri) in _S3_SCHEMES


def _scheme(uri: str) -> str:
    head, separator, _ = uri.partition(":")
    return head.lower() if separator and head.isalnum() and len(head) > 1 else ""


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of `uri` and the path within it."""
    scheme = _scheme(uri)
    if scheme in ("", "file"):
        return pafs.LocalFileSystem(), local_path(uri)
    path = uri.split("://", 1)[1]
    if scheme in _S3_SCHEMES:
        return _s3(s3_endpoint(), tuple(os.environ.get(name) for name in _S3_IDENTITY), os.getpid()), path
    if scheme in ("hdfs", "viewfs", "gs", "gcs"):
        return cast("tuple[pafs.FileSystem, str]", pafs.FileSystem.from_uri(uri))
    import fsspec

    try:
        other, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"no filesystem for {scheme}:// ({error}); use a path, file://, hdfs://, s3a:// or gs://", uri
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(other)), path


def s3_endpoint() -> str | None:
    """URL of the object store of S3's protocol, None for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def s3_region() -> str | None:
    """The region that requests are signed for; None where each client is left to find out. Stores of others than
    Amazon mostly have none, and take this one."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or ("us-east-1" if s3_endpoint() else None)


def delta_rs_options(uri: str) -> dict[str, str] | None:
    """What delta-rs has to be told of the object store of `uri`; credentials it finds where all find them."""
    endpoint = s3_endpoint()
    if not is_s3(uri) or endpoint is None:
        return None
    return {"endpoint": endpoint, "region": s3_region() or "", "allow_http": str(endpoint.startswith("http:")).lower()}


@lru_cache(maxsize=8)
def _s3(endpoint: str | None, identity: tuple[str | None, ...], process: int) -> pafs.FileSystem:
    """One client for all calls: a new one finds its credentials again and opens connections of its own. Threads may
    share it, a forked process may not, so `process` tells them apart; `identity` tells what it signs with."""
    if endpoint is None:
        return pafs.S3FileSystem()
    parts = urlsplit(endpoint)
    return pafs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme)


def from_spark(uri: str) -> str:
    """A URI as Spark reports it (`_metadata.file_path`, percent-encoded) in the literal form used here."""
    decoded = unquote(uri)
    return (
        "file://" + decoded[len("file:") :]
        if decoded.startswith("file:/") and not decoded.startswith("file://")
        else decoded
    )


def join(uri: str, *parts: str) -> str:
    return posixpath.join(uri, *parts)


def kind(uri: str) -> str:
    """`file`, `directory` or `absent`."""
    fs, path = filesystem(uri)
    found = fs.get_file_info(path).type
    return {pafs.FileType.File: "file", pafs.FileType.Directory: "directory"}.get(found, "absent")


def is_file(uri: str) -> bool:
    if is_s3(uri):
        with contextlib.suppress(InputError), _object(uri):
            return True
        return False
    return kind(uri) == "file"


def size(uri: str) -> int:
    """Bytes of a file; 0 where it is absent."""
    fs, path = filesystem(uri)
    return int(fs.get_file_info(path).size or 0)


def open_input(uri: str) -> BinaryIO:
    """Opens a file for reading bytes. InputError when it is absent or is no file."""
    fs, path = filesystem(uri)
    if fs.get_file_info(path).type != pafs.FileType.File:
        raise _absent(uri)
    return cast("BinaryIO", fs.open_input_stream(path, compression=None))


def read_bytes(uri: str) -> bytes:
    """A whole file. InputError when it is absent or is no file."""
    if is_s3(uri):
        with _object(uri) as file:
            return cast("bytes", file.read_at(file.size(), 0))
    with open_input(uri) as stream:
        return stream.read()


def _object(uri: str) -> pa.NativeFile:
    """An object of a store, by one request: asking what there is makes three of one that is absent, and a stream one
    for every megabyte. InputError when it is absent."""
    fs, path = filesystem(uri)
    if path.endswith("/"):
        raise _absent(uri)
    try:
        return fs.open_input_file(path)
    except FileNotFoundError as error:
        raise _absent(uri) from error


def _absent(uri: str) -> InputError:
    return InputError("no such file; expected a readable file, check the path", uri)


def write_bytes(uri: str, content: bytes) -> None:
    """Publishes `content` at `uri` whole: written aside, then moved into place; where that fails nothing is left aside.
    An object is whole without that."""
    fs, path = filesystem(uri)
    if is_s3(uri):
        with fs.open_output_stream(path, compression=None) as stream:
            stream.write(content)
        return
    fs.create_dir(posixpath.dirname(path), recursive=True)
    aside = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with fs.open_output_stream(aside) as stream:
            stream.write(content)
        fs.move(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.delete_file(aside)
        raise


def read_json(uri: str) -> Any:
    """A JSON file of the lake. Damaged where it is none."""
    try:
        return json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"not readable as JSON ({error}); {MEND}", uri) from error


def write_json(uri: str, value: Any) -> None:
    write_bytes(uri, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def files_under(uri: str, suffix: str = "") -> list[str]:
    """URIs of the files below `uri` that end in `suffix`, sorted; none where `uri` is absent."""
    fs, path = filesystem(uri)
    found = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    prefix = uri[: len(uri) - len(path)] if uri.endswith(path) else ""
    return sorted(prefix + f.path for f in found if f.type == pafs.FileType.File and f.path.endswith(suffix))


def folders(uri: str) -> list[str]:
    """Names of the folders in `uri` that are not hidden, sorted; none where it is absent."""
    fs, path = filesystem(uri)
    found = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(
        f.base_name for f in found if f.type == pafs.FileType.Directory and not f.base_name.startswith((".", "_"))
    )


def is_hidden(uri: str, folder: str) -> bool:
    """Whether a file below `folder` is hidden as Hadoop and people do it: its name, or that of a folder
    on the way, begins with . or _."""
    return any(part.startswith((".", "_")) for part in uri[len(folder) :].split("/"))


def listing(uri: str) -> list[tuple[str, float, int]]:
    """Files below `uri`: URI, when it was last modified (seconds of the epoch) and bytes; sorted by URI."""
    fs, path = filesystem(uri)
    found = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    prefix = uri[: len(uri) - len(path)] if uri.endswith(path) else ""
    return sorted(
        (prefix + f.path, f.mtime_ns / 1e9 if f.mtime_ns else 0.0, f.size)
        for f in found
        if f.type == pafs.FileType.File
    )


def make_directory(uri: str) -> None:
    fs, path = filesystem(uri)
    make_folder(fs, path)


def make_folder(fs: pafs.FileSystem, path: str) -> None:
    """Makes a folder and those above it. On S3 there is nothing to make: a folder is what names begin with."""
    for last in (False, False, True):
        if fs.type_name == "s3":
            return
        try:
            return fs.create_dir(path, recursive=True)
        except FileExistsError:  # also for a folder that is taken away at the moment that it is found to be there
            if last:
                raise


def remove_file(uri: str) -> None:
    fs, path = filesystem(uri)
    fs.delete_file(path)


def remove_directory(uri: str) -> None:
    fs, path = filesystem(uri)
    if fs.get_file_info(path).type == pafs.FileType.Directory:
        fs.delete_dir(path)


def reserve(file: Any, size: int, path: str) -> None:
    """Takes `size` bytes of the disk for an empty local file at once. OSError, naming `path`, where the disk has not as
    many: a page of a mapped file that finds no room later ends the process without a word."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def content_hash(uri: str) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a file's content."""
    digest, size = hashlib.sha256(), 0
    with open_input(uri) as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def private_folder(parent: str, name: str) -> str:
    """Path of a folder below the local `parent` that no other user can look into,
    the same for every process of this user.

    In a folder that all may write to, somebody else may have taken the name, or have put a link or an open folder
    there: such a one is passed over.
    """
    for number in range(100):
        path = os.path.join(parent, f"{name}-{os.getuid()}" + (f"-{number}" if number else ""))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        with contextlib.suppress(OSError):
            opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(opened)
            finally:
                os.close(opened)
            if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700:
                return path
    raise InputError(
        f"found {name}-{os.getuid()} and 99 names like it taken by others; expected a free one, remove them", parent
    )
