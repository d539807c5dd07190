"""Reading a volume: see seam.Reading. There is one reader, because it is the disk that takes the time."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tenant_backup.contract import paths
from tenant_backup.contract.job import Volume
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.seam import Piece

from . import names, tar
from .sending import Out
from .walking import Found, walk

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_READS = 2  # of a file that changes meanwhile
_TICK = 20_000_000  # nanoseconds: the longest step of a file system's clock
_LISTED = 20  # paths
_TOLD = 5  # paths in a message
_USERS = "user."  # the attributes that whoever may write a file may write
_CONNECTION_LOST = (errno.EPIPE, errno.ECONNRESET)


@dataclass
class Listed:
    """Paths of one kind: all are counted, the first are named."""

    count: int = 0
    paths: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        """Note one more."""
        self.count += 1
        if len(self.paths) < _LISTED:
            self.paths.append(path)

    def document(self) -> dict[str, Any]:
        """Return it as the catalogue has it."""
        return {"count": self.count, "paths": [names.shown(path) for path in self.paths]}


@dataclass
class Reading:
    """See seam.Reading."""

    volume: Volume
    root: int  # the volume, opened
    files: int = 0  # everything but directories
    bytes: int = 0  # of files, without holes
    changed: Listed = field(default_factory=Listed)
    skipped: Listed = field(default_factory=Listed)
    began: str = ""
    ended: str = ""
    sessions: int = 1

    @property
    def pieces(self) -> list[Piece]:
        """All of the volume is one stream: behind a change the same chunks come again by themselves."""
        space = os.fstatvfs(self.root)  # too much when others use the same file system: it is an estimate
        return [Piece(names.segment(self.volume.name), "blob", None, _used(space))]

    def session(self, out: int, started: Callable[[Callable[[], None]], None]) -> Session:
        """See seam.Reading."""
        session = Session(self, Out(out))
        started(session.stop)
        return session

    def catalogue(self, _rows: dict[str, int]) -> dict[str, Any]:
        """See seam.Reading."""
        return {
            "name": self.volume.name,
            "segment": names.segment(self.volume.name),
            "files": self.files,
            "bytes": self.bytes,
            "changed": self.changed.document(),
            "skipped": self.skipped.document(),
            "readFrom": self.began,
            "readTo": self.ended,
        }


@dataclass
class Session:
    """See seam.Session."""

    reading: Reading
    out: Out
    unreadable: Listed = field(default_factory=Listed)
    linked: dict[int, bytes] = field(default_factory=dict)  # first name of each file that has several
    stopped: bool = False

    def stop(self) -> None:
        """End it at the next file."""
        self.stopped = True

    def send(self, _piece: Piece) -> None:
        """See seam.Session."""
        reading = self.reading
        reading.began = _now()
        with told(reading.volume):
            leave_out = names.matcher(reading.volume.exclude)
            for found in walk(reading.root, leave_out, self.unreadable.add):
                if self.stopped:
                    raise Failure(Reason.CANCELLED, "reading the files was stopped", retriable=True)
                self._add(found)
            self.out.write(tar.END)
            self.out.flush()
        reading.ended = _now()
        if self.unreadable.count:
            raise unreadable(reading.volume, self.unreadable)

    def close(self) -> None:
        """See seam.Session: whoever opened the volume closes it."""

    def _add(self, found: Found) -> None:
        mode = found.status.st_mode
        if stat.S_ISREG(mode):
            self._add_file(found)
        elif stat.S_ISDIR(mode):
            self._add_directory(found)
        elif stat.S_ISLNK(mode):
            self._add_link(found)
        else:
            self.reading.skipped.add(found.path)

    def _add_directory(self, found: Found) -> None:
        self.out.write(tar.header(_entry(found, "directory", xattrs=_xattrs(found.directory))))
        if found.is_mount:
            self.reading.skipped.add(found.path)

    def _add_link(self, found: Found) -> None:
        try:
            target = os.fsencode(os.readlink(found.name, dir_fd=found.folder))
        except FileNotFoundError:
            return  # deleted since it was listed
        self.reading.files += 1
        self.out.write(tar.header(_entry(found, "symlink", target=target)))

    def _add_file(self, found: Found) -> None:
        first = self.linked.get(found.status.st_ino) if found.status.st_nlink > 1 else None
        if first is not None:
            self.reading.files += 1
            self.out.write(tar.header(_entry(found, "hardlink", target=first)))
            return
        try:
            descriptor = os.open(found.name, _FILE, dir_fd=found.folder)
        except FileNotFoundError:
            return  # deleted since it was listed
        except PermissionError:
            self.unreadable.add(found.path)
            return
        try:
            if not self.unreadable.count:  # else there will be no backup: all that matters is what else is
                self._read(found, descriptor)
        finally:
            os.close(descriptor)

    def _read(self, found: Found, descriptor: int) -> None:
        """Send a file, and once more if it changed: of two entries with one path the later one counts."""
        for _ in range(_READS):
            before = _settled(descriptor)
            entry = _entry(
                found._replace(status=before),
                "file",
                size=before.st_size,
                xattrs=_xattrs(descriptor),
                extents=_extents(descriptor, before),
            )
            stored = self._send_file(entry, descriptor)
            if _moment(before) == _moment(os.fstat(descriptor)):
                break
        else:
            self.reading.changed.add(found.path)
        self.reading.files += 1
        self.reading.bytes += stored
        if before.st_nlink > 1:
            self.linked[before.st_ino] = entry.path

    def _send_file(self, entry: tar.Entry, descriptor: int) -> int:
        """Send a file as it is now; return its bytes without holes."""
        stored = 0
        self.out.write(tar.header(entry))
        for offset, length in entry.data:
            self.out.copy(descriptor, offset, length)
            stored += length
        self.out.write(tar.padding(stored))
        return stored


@contextlib.contextmanager
def reading(volume: Volume) -> Iterator[Reading]:
    """Open a volume that is mounted below paths.FILES. Raises Failure."""
    with told(volume):
        root = os.open(paths.FILES / volume.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Reading(volume, root)
    finally:
        os.close(root)


def _entry(found: Found, type_: tar.Type, **more: Any) -> tar.Entry:
    status = found.status
    return tar.Entry(
        path=os.fsencode(found.path),
        type=type_,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        **more,
    )


def _used(space: os.statvfs_result) -> int:
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _settled(descriptor: int) -> os.stat_result:
    """Return what a file is like once a later change would show: a file system's clock moves in steps."""
    status = os.fstat(descriptor)
    left = status.st_ctime_ns + _TICK - time.time_ns()
    if 0 < left <= _TICK:
        time.sleep(left / 1e9)
        status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):  # replaced since it was looked at
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return status


def _xattrs(descriptor: int) -> dict[bytes, bytes]:
    try:
        found = [name for name in os.listxattr(descriptor) if name.startswith(_USERS)]
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}
    values = {}
    for name in found:
        with contextlib.suppress(OSError):  # removed since it was listed
            values[os.fsencode(name)] = os.getxattr(descriptor, name)
    return values


def _extents(descriptor: int, status: os.stat_result) -> tar.Extents | None:
    """Return the stretches with data of a file with holes, the last of them at its end; else None."""
    if status.st_blocks * 512 >= status.st_size:
        return None
    found, at = [], 0
    while at < status.st_size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole is left
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), status.st_size)
        if start < at:
            found.append((start, at - start))
    if found == [(0, status.st_size)]:
        return None
    # Whoever unpacks it knows the size from a stretch that ends there.
    return tuple(found) if at == status.st_size and found else (*found, (status.st_size, 0))


@contextlib.contextmanager
def told(volume: Volume) -> Iterator[None]:
    """Turn what the volume refuses into a Failure; a lost connection is the caller's."""
    try:
        yield
    except PermissionError:
        raise unreadable(volume, Listed(1, ["."])) from None
    except OSError as error:
        if error.errno in _CONNECTION_LOST:
            raise
        message = (
            f"reading volume {volume.name} (claim {volume.claim}): {error.strerror}; see that it is healthy"
        )
        raise Failure(Reason.VOLUME_UNAVAILABLE, message, retriable=True) from error


def unreadable(volume: Volume, found: Listed) -> Failure:
    """Return what to say of what the volume's user cannot read."""
    listed = names.listed(found.paths[:_TOLD], found.count)
    message = (
        f"user {os.geteuid()}, group {os.getegid()} cannot read {listed} on volume {volume.name}; set"
        " securityContext of that entry of the Tenant's spec.files to who can, or leave them out with exclude"
    )
    return Failure(Reason.PERMISSION_DENIED, message)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
