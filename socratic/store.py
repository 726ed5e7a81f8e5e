"""Files that survive a kill: atomic writes, JSON lines, locks, hashes and manifests. Knows nothing of the domain."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import os
import shlex
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from socratic.types import UserError

T = TypeVar("T")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
MANIFEST = "manifest.json"
LOCK = ".lock"
_SYNC_SECONDS = 0.1
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Of an `OSError` that may pass: the disk is full."""
NO_ACCESS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS)
"""Of an `OSError` about a path that is too long or may not be used."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` to be written; it takes the place of ``path`` once it is whole and on the disk.

    Raises `UserError` where no file can be made in that place. A full disk stays an `OSError`: that may pass.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a folder, a device or a pipe, which a rename would replace
            raise OSError(errno.EINVAL, "no ordinary file")
        temporary.touch(exist_ok=False)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place") from None
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def atomic_write(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either its old content or all of the new, whatever is killed when."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON; NaN and infinities raise `ValueError`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    atomic_write(path, text.encode("utf-8", "replace"))


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write ``records`` atomically, one JSON object a line."""
    atomic_write(path, b"".join(_line(record) for record in records))


def read_json(path: Path) -> Any:
    """The value in ``path``; raises `UserError` naming the file where it is absent or not JSON."""
    try:
        return _parse(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON in UTF-8 ({error}); correct or remove it") from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in ``path``, one a line; blank lines are skipped.

    Raises `UserError` with file and line at a line that is not UTF-8, not JSON or not an object.
    """
    for _, _, record in _objects(path, allow_torn_tail=False):
        yield record


def read_records(path: Path, cls: type[T], *, allow_torn_tail: bool = False) -> Iterator[T]:
    """The lines of ``path``, unpacked if it ends in .gz, as instances of the dataclass ``cls``, every field checked.

    ``allow_torn_tail`` leaves out a last line without its newline: one that is being written, or was cut by a kill.
    Raises `UserError` with file and line at anything else that is no such record.
    """
    for number, line, _ in _objects(path, allow_torn_tail):
        yield parse_record(f"{path}:{number}", line, cls)


def parse_record(where: str, text: bytes | str, cls: type[T]) -> T:
    """The JSON object ``text`` as an instance of the dataclass ``cls``, every field checked.

    Raises `UserError` that begins with ``where`` at anything that is no such record.
    """
    try:
        record: T = _adapter(cls).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        what = f"field {'.'.join(map(str, first['loc']))!r} of this" if first["loc"] else "this"
        raise UserError(f"{where}: {what} {cls.__name__.lower()} is not usable ({first['msg']}); correct it") from None
    return record


def as_record(where: str, value: Any, cls: type[T]) -> T:
    """A JSON object that was read already as `parse_record` gives it; raises `UserError` for NaN and infinities too."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise UserError(f"{where} holds NaN or an infinity, which JSON has not; correct it") from None
    return parse_record(where, text, cls)


class JsonlAppender:
    """Appends records to a JSON-lines file during a long run.

    A record counts as written once its newline is in the file: on opening, whatever stands behind the last newline
    (left by a kill) is cut off. Every record reaches the operating system at once and so survives a killed process; the
    disk is synchronised at most ten times a second, and on closing. One writer a file: hold the folder's `lock`.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise UserError(f"{path} cannot be written to ({error.strerror}); choose another file") from None
        _cut_torn_tail(self._file)
        _sync_folder(path.parent)
        self._synced = 0.0

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; NaN and infinities raise `ValueError`."""
        self._file.write(_line(record))
        self._file.flush()
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Synchronise the disk and close the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` (made where absent) for this process alone, without waiting.

    Raises `UserError` naming the process that holds it. The operating system frees the lock when its holder dies.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}); choose another folder") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode("utf-8", "replace") or "another process"
        os.close(descriptor)
        raise UserError(f"{folder} is in use by {holder}; wait until it ends or choose another folder") from None
    _held.add(descriptor)
    command = shlex.join(sys.argv)[:200]
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} ({command})".encode("utf-8", "replace"), 0)
    try:
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.ftruncate(descriptor, 0)
            os.close(descriptor)


_held: set[int] = set()


def _close_locks_in_child() -> None:
    # A forked worker shares the lock's descriptor and would keep the folder locked after its holder was killed.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_locks_in_child)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 of ``text`` in UTF-8, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of ``value``'s canonical JSON (keys sorted, no spaces), in hex; NaN and infinities raise `ValueError`."""
    return hash_text(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False))


def is_main_process() -> bool:
    """Whether this is the one of several processes (``accelerate launch``) that writes files."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes (``accelerate launch``) do this together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def shipped(folder: str) -> Path:
    """A folder of the checkout: ``prompts``, ``data`` and ``recipes``, which an installed package carries inside, or
    ``students``, which it does not.
    """
    package = Path(__file__).parent
    return installed if (installed := package / f"_{folder}").is_dir() else package.parent / folder


def cache_folder() -> Path:
    """Where what can be made again is kept: ``$XDG_CACHE_HOME/socratic``, else ``~/.cache/socratic``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "socratic"


def files(folder: Path) -> list[str]:
    """Paths of all files below ``folder``, sorted, this module's own locks and temporary files apart."""
    found = (path for path in folder.rglob("*") if path.is_file() and not _is_own_scratch(path))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def first_file(folder: Path) -> str | None:
    """The first of `files`; None without one."""
    return next(iter(files(folder)), None)


def write_manifest(folder: Path, skip: Collection[str] = ()) -> None:
    """Record size and SHA-256 of every file below ``folder``, but for those that ``skip`` names, folders or files.

    Call it last: it marks the folder whole.
    """
    entries = {
        name: {"size": (folder / name).stat().st_size, "sha256": hash_file(folder / name)}
        for name in files(folder)
        if name not in (MANIFEST, *skip) and name.partition("/")[0] not in skip
    }
    write_json(folder / MANIFEST, {"files": entries})


def check_manifest(folder: Path) -> str | None:
    """None where every file stands as `write_manifest` recorded it, else what is wrong. Added files do not matter."""
    try:
        files = read_json(folder / MANIFEST)["files"]
        entries = [(str(name), int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()]
    except UserError as error:
        return str(error)
    except (TypeError, KeyError, ValueError, AttributeError):
        return f"{folder / MANIFEST} is not a manifest"
    for name, size, digest in entries:
        path = folder / name
        if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):  # a link inside may lead out
            return f"{name} lies outside {folder}"
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes, not the recorded {size}"
        if hash_file(path) != digest:
            return f"{path} does not have the recorded SHA-256"
    return None


def _line(record: Mapping[str, Any]) -> bytes:
    # A lone surrogate, which UTF-8 cannot hold, becomes "?".
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def _parse(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _objects(path: Path, allow_torn_tail: bool) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Line number, bytes and parsed object of every line that is not blank."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path") from None
    with file:
        for number, line in enumerate(_unpacked(path, file) if path.suffix == ".gz" else file, start=1):
            if not line.strip() or (allow_torn_tail and not line.endswith(b"\n")):
                continue
            try:
                record = _parse(line)
            except (ValueError, RecursionError) as error:
                # The parser's own position says "line 1", which would contradict the file's line.
                detail = error.msg if isinstance(error, json.JSONDecodeError) else error
                raise UserError(f"{path}:{number}: not valid JSON in UTF-8 ({detail}); correct that line") from None
            if not isinstance(record, dict):
                raise UserError(f"{path}:{number}: {line[:40]!r} is not a JSON object; correct that line")
            yield number, line, record


def _unpacked(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        with gzip.open(file) as unpacked:
            yield from unpacked
    except (EOFError, OSError, zlib.error):
        raise UserError(f"{path} is damaged: it is not a whole gzip file; restore it") from None


def end_last_line(path: Path) -> None:
    """Put a newline behind a last record of a JSON-lines file that an editor has left without; a torn one stays.

    Raises `UserError` where the last line is no record at all.
    """
    if not path.is_file() or not (content := path.read_bytes()) or content.endswith(b"\n"):
        return
    last = content.rpartition(b"\n")[2]
    try:
        _parse(last)
    except (ValueError, RecursionError):
        if not last.lstrip().startswith(b"{"):
            raise UserError(f"the last line of {path} is no record; give another file, or correct it") from None
        return
    with path.open("ab") as file:
        file.write(b"\n")


def expanded(path: Path | str) -> Path:
    """``path`` with ``~`` replaced; raises `UserError` for a user that there is not."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path} begins with a user's name that is not known here; write the whole path") from None


def _cut_torn_tail(file: BinaryIO) -> None:
    position = file.seek(0, os.SEEK_END)
    while position:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    file.truncate(position)


def _is_own_scratch(path: Path) -> bool:
    return path.name == LOCK or (path.name.startswith(".") and path.suffix == ".tmp")


def _sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` durable, not only the bytes behind it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
