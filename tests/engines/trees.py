"""Random trees of files on real file systems, and what can be said of one: equal trees say the same."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from tenant_backup.contract import paths
from tenant_backup.contract.job import NO_DATABASE, Restore, Store, Swap, Tenant, Volume
from tenant_backup.engines.files import placing, reading, switching
from tenant_backup.engines.files.names import LEFT_ALONE
from tenant_backup.engines.seam import Piece, Sent, Together

_ODD = [
    b"plain",
    b"\xff\xfe",
    "grüße".encode(),
    b"new\nline",
    b"-rf *",
    b"quote'\"",
    b"a" * 255,
    b" ",
    b"%3D",
    b"\x01",
]
_HOUR = 3600 * 10**9


def volume(name: str, **fields: Any) -> Volume:
    """The volume of this name."""
    return Volume(**({"name": name, "claim": f"claim-{name}", "user": 1, "group": 1} | fields))


def grow(top: Path, seed: int) -> None:
    """Fill an empty folder: every kind of entry, odd names, odd times, holes."""
    chance = random.Random(seed)
    folders, files = [os.fsencode(top)], []
    for number in range(chance.randint(0, 60)):
        folder = chance.choice(folders)
        name = chance.choice(_ODD)[:200] + b"%d" % number
        path = folder + b"/" + name
        match chance.randint(0, 9):
            case 0 | 1:
                os.mkdir(path)
                folders.append(path)
            case 2:
                os.symlink(chance.choice([b"../..", b"/etc/passwd", name * 3, b"\xfe"])[:4000], path)
            case 3 if files:
                os.link(chance.choice(files), path)
            case 4:
                _write_holes(path, chance)
                files.append(path)
            case _:
                Path(os.fsdecode(path)).write_bytes(
                    chance.randbytes(chance.choice([0, 1, 511, 512, 513, 70_000, 300_000]))
                )
                files.append(path)
    for path in [*files, *reversed(folders[1:])]:
        _adorn(path, chance)


def _write_holes(path: bytes, chance: random.Random) -> None:
    with Path(os.fsdecode(path)).open("wb") as file:
        for _ in range(chance.randint(0, 3)):
            file.seek(chance.randint(0, 40) << 16)
            file.write(chance.randbytes(5000))
        file.truncate(chance.randint(42, 60) << 16)


def _adorn(path: bytes, chance: random.Random) -> None:
    if chance.random() < 0.2:
        os.setxattr(path, b"user.k=\xc3\xbc%", chance.randbytes(20))
    if chance.random() < 0.2 and os.geteuid() == 0:
        os.chown(path, chance.choice([1000, 3_000_000]), 2000)
    os.chmod(
        path,
        chance.choice([0o644, 0o600, 0o755, 0o2750, 0o4711, 0o1777]) | (0o700 if os.path.isdir(path) else 0),
    )
    moment = chance.choice(
        [0, 1, 1_700_000_000 * 10**9, 1_700_000_000_123_456_789, -5 * 10**8, 1 << 33 << 30]
    )
    os.utime(path, ns=(moment, moment))


def described(top: Path) -> dict[bytes, tuple[Any, ...]]:
    """Return everything about the entries below a folder, by path."""
    first: dict[int, bytes] = {}
    found = {}
    for path in _paths(os.fsencode(top)):
        status = os.lstat(path)
        relative = path.removeprefix(os.fsencode(top) + b"/")
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if kind == stat.S_IFREG:
            content = (status.st_size, _content(path), first.setdefault(status.st_ino, relative))
        if kind == stat.S_IFLNK:
            content = os.readlink(path)
        xattrs = (
            {} if kind == stat.S_IFLNK else {name: os.getxattr(path, name) for name in os.listxattr(path)}
        )
        mtime = status.st_mtime_ns
        found[relative] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            mtime,
            content,
            sorted(xattrs.items()),
        )
    return found


def _paths(folder: bytes, top: bool = True) -> Iterator[bytes]:
    for name in sorted(os.listdir(folder)):
        if top and os.fsdecode(name) in LEFT_ALONE:
            continue
        path = folder + b"/" + name
        yield path
        if stat.S_ISDIR(os.lstat(path).st_mode):
            yield from _paths(path, top=False)


def _content(path: bytes) -> str:
    """Return the hash of the stretches with data: a hole that came back as zeros is another file."""
    said = hashlib.sha256()
    with Path(os.fsdecode(path)).open("rb") as file:
        end = at = 0
        with suppress(OSError):  # ENXIO: no data behind this
            while True:
                at = os.lseek(file.fileno(), end, os.SEEK_DATA)
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                said.update(b"%d:%d:" % (at, end) + os.pread(file.fileno(), end - at, at))
    return said.hexdigest()


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Have the stages find volumes below `folder`."""
    before, paths.FILES = paths.FILES, folder
    try:
        yield folder
    finally:
        paths.FILES = before


def read(
    source: Volume, sent: Callable[[Piece, Sent], None] = lambda _piece, _sent: None
) -> tuple[bytes, dict[str, Any]]:
    """Read a volume through a real socket; return the tar and what the catalogue says of it as one segment.

    `sent` is told what the session said of each piece. Raises Failure.
    """
    ours, theirs = socket.socketpair()
    process, blocks = _drain(theirs)
    with ours, reading.reading(source) as held:
        session = held.session(ours.fileno(), lambda _kill: None)
        try:
            for piece in held.pieces:
                sent(piece, session.send(piece))
        finally:
            session.close()
            ours.close()
            process()
        return b"".join(blocks), held.catalogue({}) | {"segments": ["all"]}


def _drain(connection: socket.socket) -> tuple[Callable[[], None], list[bytes]]:
    import threading

    blocks: list[bytes] = []

    def drain() -> None:
        with connection:
            while block := connection.recv(1 << 20):
                blocks.append(block)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    return thread.join, blocks


class Kept:
    """See seam.Stored: a tar in memory, in blocks of an odd length that come into one buffer."""

    def __init__(self, tape: bytes, length: int = 7001) -> None:
        self._tape, self._length = memoryview(tape), length

    def blocks(self, _segment: str) -> Iterator[memoryview]:
        """See seam.Stored."""
        buffer = bytearray(self._length)
        for at in range(0, len(self._tape), self._length):
            piece = self._tape[at : at + self._length]
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]

    def verdict(self) -> dict[str, Any]:
        """See seam.Stored."""
        return {"rows": None, "bytes": len(self._tape)}


class Alone:
    """See seam.Together: the only part of a restore, which decides by itself."""

    def begin(self, *, committed: bool) -> bool:
        """See seam.Together."""
        return committed

    def meet(self, step: str) -> None:
        """See seam.Together."""

    def ended(self, *, committed: bool) -> bool:
        """See seam.Together."""
        return committed


ALONE = Alone()


def filling(target: Volume, uid: str, strategy: str = "NewDatabase", **changes: Any) -> Restore:
    """A restore of this volume and nothing else."""
    tenant = Tenant("cluster", "lab", "acme", "acme")
    known: dict[str, Any] = {
        "strategy": strategy,
        "source": tenant,
        "tenant": tenant,
        "database": NO_DATABASE,
        "target_database": "",
        "store": Store("volume"),
        "backup_id": "acme_1",
        "manifest_sha256": "",
        "signing_key": "",
        "files": [target],
    }
    return Restore(uid, "r1", **(known | changes))


def place(target: Volume, uid: str, tape: bytes, document: dict[str, Any]) -> dict[str, Any]:
    """Restore a volume, which has to be empty, from a tar. Raises Failure."""
    return placing.place(filling(target, uid), target, document, Kept(tape), ALONE)


def put(
    target: Volume,
    uid: str,
    tape: bytes,
    document: dict[str, Any],
    together: Together = ALONE,
    **changes: Any,
) -> dict[str, Any]:
    """Replace the files of a volume by those in a tar, or what `strategy` says. Raises Failure."""
    job = filling(target, uid, **({"strategy": "Replace"} | changes))
    return placing.place(job, target, document, Kept(tape), together)


def switch(target: Volume, uid: str, action: Literal["Undo", "DropPrevious"]) -> None:
    """Undo that, or drop what it kept. Raises Failure."""
    switching.carry_out(Swap(uid, "r1", action, NO_DATABASE, "", [target]), target)
