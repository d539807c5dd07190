"""Reading a volume: see seam.Reading. The walk is in `walking`, what need not be read in `runs`."""

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
from tenant_backup.engines.seam import Piece, Sent

from . import names, runs, tar
from .runs import Run
from .sending import SMALL, Out
from .walking import Folders, Found, walk

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
class Tally:
    """How much of a module is on the volume."""

    module: str
    is_meant: Callable[[str], bool]
    files: int = 0
    bytes: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as the catalogue has it."""
        return {"name": self.module, "files": self.files, "bytes": self.bytes}


@dataclass
class Reading:
    """See seam.Reading."""

    volume: Volume
    root: int  # the volume, opened
    files: int = 0  # everything but directories
    bytes: int = 0  # of files, with holes
    read: int = 0  # files that were not found unchanged
    changed: Listed = field(default_factory=Listed)
    skipped: Listed = field(default_factory=Listed)
    unreadable: Listed = field(default_factory=Listed)
    linked: dict[int, str] = field(default_factory=dict)  # first name of each file that has several
    segments: list[str] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    began: str = ""
    ended: str = ""
    sessions: int = 1  # the first name of a file is sent before the others

    @property
    def pieces(self) -> Iterator[Piece]:
        """Walk: each run is a piece, and so is the end of the tar."""
        self.began = _now()
        with told(self.volume):
            leave_out = names.matcher(self.volume.exclude)
            found = walk(self.root, leave_out, self.unreadable.add)
            for entries, began in runs.cut(filter(self._is_chosen(), found)):
                fingerprint = runs.fingerprint(entries, began, self.linked)
                length = sum(map(self._count, entries))
                yield Run(self._next_segment(), "blob", None, length, fingerprint, entries, began)
        yield Piece(self._next_segment(), "blob")
        self.ended = _now()
        if self.unreadable.count:
            raise unreadable(self.volume, self.unreadable)

    @property
    def size(self) -> int:
        """See seam.Reading."""
        return _used(os.fstatvfs(self.root))  # too much when others use the same file system

    def session(self, out: int, started: Callable[[Callable[[], None]], None]) -> Session:
        """See seam.Reading."""
        session = Session(self, Out(out), Folders(self.root))
        started(session.stop)
        return session

    def catalogue(self, _rows: dict[str, int]) -> dict[str, Any]:
        """See seam.Reading."""
        return {
            "name": self.volume.name,
            "segments": self.segments,
            "files": self.files,
            "bytes": self.bytes,
            "read": self.read,
            "modules": [tally.document() for tally in self.tallies],
            "changed": self.changed.document(),
            "skipped": self.skipped.document(),
            "readFrom": self.began,
            "readTo": self.ended,
        }

    def _next_segment(self) -> str:
        self.segments.append(names.segment(self.volume.name, len(self.segments)))
        return self.segments[-1]

    def tally(self, path: str, files: int, length: int) -> None:
        """Count files, or less of them, with so many bytes."""
        self.files += files
        self.bytes += length
        for tally in self.tallies:
            if tally.is_meant(path):
                tally.files += files
                tally.bytes += length

    def _is_chosen(self) -> Callable[[Found], bool]:
        """Return what says whether an entry is to be read: directories are, whosever files are in them."""
        only = self.volume.only_modules
        patterns = [pattern for one in self.volume.modules if one.module in only for pattern in one.patterns]
        is_meant = names.matcher(patterns)
        return lambda found: not only or stat.S_ISDIR(found.status.st_mode) or is_meant(found.path)

    def _count(self, found: Found) -> int:
        """Count an entry; return its bytes."""
        mode = found.status.st_mode
        if stat.S_ISDIR(mode):
            if found.is_mount:
                self.skipped.add(found.path)
            return 0
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            self.skipped.add(found.path)
            return 0
        length = 0 if stat.S_ISLNK(mode) or not self.is_first(found) else found.status.st_size
        self.tally(found.path, 1, length)
        return length

    def is_first(self, found: Found) -> bool:
        """Whether it is the first name of its file."""
        status = found.status
        return status.st_nlink == 1 or self.linked.setdefault(status.st_ino, found.path) == found.path


@dataclass
class Session:
    """See seam.Session."""

    reading: Reading
    out: Out
    folders: Folders
    settled: int = 0  # what was changed before that moment has not changed since, if it looks the same
    steady: bool = True  # all of the run is as it was when it was found
    stopped: bool = False

    def stop(self) -> None:
        """End it at the next file."""
        self.stopped = True

    def send(self, piece: Piece) -> Sent:
        """See seam.Session."""
        if not isinstance(piece, Run):
            self.out.write(tar.END)
            self.out.flush()
            return Sent()
        self.settled, self.steady = piece.began - _TICK, True
        with told(self.reading.volume):
            for found in piece.entries:
                if self.stopped:
                    raise Failure(Reason.CANCELLED, "reading the files was stopped", retriable=True)
                self._add(found)
            self.out.flush()
        return Sent(fingerprint=piece.fingerprint if self.steady else "")

    def close(self) -> None:
        """See seam.Session."""
        self.folders.close()

    def _add(self, found: Found) -> None:
        mode = found.status.st_mode
        if stat.S_ISREG(mode):
            self._add_file(found)
        elif stat.S_ISDIR(mode):
            self._add_directory(found)
        elif stat.S_ISLNK(mode):
            self._add_link(found)

    def _add_directory(self, found: Found) -> None:
        """Add it, even if it is gone: what was in it may follow, if another one has come."""
        xattrs: dict[bytes, bytes] = {}
        try:
            xattrs = _xattrs(self.folders.open(found.path + "/"))
        except FileNotFoundError:
            self.steady = False
        except NotADirectoryError:
            self.steady = False
            self.reading.changed.add(found.path)
        except PermissionError:
            self.reading.unreadable.add(found.path)
        self.out.write(tar.header(_entry(found, "directory", xattrs=xattrs)))

    def _add_link(self, found: Found) -> None:
        try:
            target = os.readlink(found.name, dir_fd=self.folders.open(found.folder))
        except (FileNotFoundError, NotADirectoryError):
            self._miss(found)
            return
        self.out.write(tar.header(_entry(found, "symlink", target=os.fsencode(target))))

    def _add_file(self, found: Found) -> None:
        reading, status = self.reading, found.status
        if status.st_nlink > 1 and status.st_ino not in reading.linked:
            reading.tally(found.path, 0, status.st_size)  # was counted with its first name, which is gone
        if not reading.is_first(found):
            target = os.fsencode(reading.linked[status.st_ino])
            self.out.write(tar.header(_entry(found, "hardlink", target=target)))
            return
        try:
            descriptor = os.open(found.name, _FILE, dir_fd=self.folders.open(found.folder))
        except (FileNotFoundError, NotADirectoryError):
            self._miss(found)
            return
        except PermissionError:
            reading.unreadable.add(found.path)
            return
        try:
            if reading.unreadable.count:  # there will be no backup: all that matters is what else is
                return
            reading.read += 1
            if not self._send_small(found, descriptor):
                self._read(found, descriptor)
        finally:
            os.close(descriptor)

    def _miss(self, found: Found) -> None:
        """It was deleted since it was found."""
        reading, status = self.reading, found.status
        self.steady = False
        is_file = stat.S_ISREG(status.st_mode)
        reading.tally(found.path, -1, -status.st_size if is_file else 0)
        if is_file:
            reading.linked.pop(status.st_ino, None)  # another name of it is the first now

    def _send_small(self, found: Found, descriptor: int) -> bool:
        """Send a file that is read at once; return whether it was, and had not changed since it was found."""
        status = found.status
        size = status.st_size
        if size > SMALL or size > status.st_blocks * 512 or status.st_ctime_ns > self.settled:
            return False
        xattrs = _xattrs(descriptor)
        data = os.pread(descriptor, size + 1, 0)
        if len(data) != size or _moment(os.fstat(descriptor)) != _moment(status):
            return False
        if xattrs:
            self.out.write(tar.header(_entry(found, "file", size=size, xattrs=xattrs)))
        else:
            self.out.write(tar.plain_header(os.fsencode(found.folder + found.name), status))
        self.out.write(data)
        self.out.write(tar.padding(size))
        return True

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
            self._send_file(entry, descriptor)
            if _moment(before) == _moment(os.fstat(descriptor)):
                break
        else:
            self.reading.changed.add(found.path)
        self.steady = self.steady and _moment(before) == _moment(found.status)
        self.reading.tally(found.path, 0, before.st_size - found.status.st_size)

    def _send_file(self, entry: tar.Entry, descriptor: int) -> None:
        """Send a file as it is now."""
        self.out.write(tar.header(entry))
        for offset, length in entry.data:
            self.out.copy(descriptor, offset, length)
        self.out.write(tar.padding(sum(length for _, length in entry.data)))


@contextlib.contextmanager
def reading(volume: Volume) -> Iterator[Reading]:
    """Open a volume that is mounted below paths.FILES. Raises Failure."""
    with told(volume):
        root = os.open(paths.FILES / volume.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tallies = [Tally(one.module, names.matcher(one.patterns)) for one in volume.modules]
        yield Reading(volume, root, tallies=tallies)
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


def _moment(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


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
