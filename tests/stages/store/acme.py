"""Tenant acme's pods with all their stages in this process, where a fault can be put at any call."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenant_backup import stores
from tenant_backup.archive import names
from tenant_backup.archive.keys import IndexKey
from tenant_backup.archive.manifest import Manifest, parse
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import Result, encode
from tenant_backup.stages import (
    archive,
    base,
    collect,
    delete,
    download,
    examine,
    prepare,
    probe,
    upload,
    verification,
    wire,
)
from tenant_backup.stages import open as opening
from tenant_backup.stores.base import Store
from tests.archive.sample import Folder, Keyring, open_reader, read_all
from tests.stages.pod import TENANT, Sent, catalogue_of, dump

from .faults import Faults, FaultyStore
from .site import Site

HOUR = 3600  # seconds
_SPEAK_TO_THE_STORE = (prepare, upload, download, collect, delete, probe)


@dataclass
class Acme:
    """Tenant acme on one store: its pods come and go, and `root` is where the store's files are."""

    site: Site
    root: Path
    patch: pytest.MonkeyPatch
    faults: Faults = field(default_factory=Faults)
    sent: dict[str, Sent] = field(default_factory=dict)  # what was backed up, by UID
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _connections: list[tuple[str, socket.socket]] = field(default_factory=list)  # with the name of the peer
    _gone: set[str] = field(default_factory=set)  # stages that have ended

    def __post_init__(self) -> None:
        for stage in _SPEAK_TO_THE_STORE:
            self.patch.setattr(stage, "connect", self._connect)
        for name in ("RUN", "SPOOL", "SECRETS"):
            self.patch.setattr(paths, name, self._folders[name.lower()])
        self._plain_connect = wire.connect
        self.patch.setattr(wire, "connect", self._connect_to_peer)

    @property
    def _folders(self) -> dict[str, Path]:
        root = self.site.pod.root
        return {"run": self.site.pod.run, "spool": root / "spool", "secrets": root / "secrets"}

    def _connect(self, described: jobs.Store, under: str, **where: Path) -> Store:
        return FaultyStore(stores.connect(described, under, **where), self.faults)

    def _connect_to_peer(self, path: Path, peer: str) -> socket.socket:
        connection = self._plain_connect(path, peer)
        with self._lock:
            self._connections.append((peer, connection))
            if peer in self._gone:
                connection.shutdown(socket.SHUT_RDWR)
        return connection

    @contextmanager
    def failing(self, faults: Faults) -> Iterator[Faults]:
        """Have the store's calls fail so, for the time of the block."""
        self.faults = faults
        try:
            yield faults
        finally:
            self.faults = Faults()

    # What pods do.

    def back_up(
        self, uid: str, sent: Sent, backup_id: str, between: Callable[[], None] = lambda: None
    ) -> Any:
        """Run all stages of a backup; return upload's facts. Raises the Failure that ended it.

        `between` comes after `prepare`.
        """
        self.sent[uid] = sent
        self._new_pod()
        job = self.site.backup(uid=uid, backup_id=backup_id)
        prepare.run(job, volume=self.site.volume, **self._folders)
        between()
        committed = json.loads((self.site.pod.run / paths.PREPARED).read_text())["committed"]
        stages: dict[str, Callable[[], Any]] = {
            "upload": lambda: upload.run(job, volume=self.site.volume, **self._folders),
            "archive": lambda: archive.run(job),
        }
        if not committed:
            stages["dump"] = lambda: _dump(self, sent)
        return self._together(stages)["upload"]

    def restore(self, backup_id: str, received: dict[str, tuple[bytes, bool]]) -> None:
        """Run `download` and `open`; what reaches `load` is in `received`, with whether it was vouched for."""
        self._new_pod()
        job = dataclasses.replace(self.site.restore(), backup_id=backup_id)
        self._together(
            {
                "download": lambda: download.run(job, volume=self.site.volume, **self._folders),
                "open": lambda: opening.run(job),
                "load": lambda: _load(self, received),
            }
        )

    def verify(self, job: jobs.Verify) -> Any:
        """Run `download` and `examine`; return the facts of what was found."""
        self._new_pod()
        stages = {
            "download": lambda: download.run(job, volume=self.site.volume, **self._folders),
            "examine": lambda: examine.run(job),
        }
        return self._together(stages)["examine"]

    def delete(self, uid: str, backup_id: str) -> Any:
        """Delete a backup."""
        job = jobs.Delete(uid, backup_id, TENANT, self.site.described, HOUR)
        return delete.run(job, secrets=self._folders["secrets"], volume=self.site.volume)

    def collect(self) -> Any:
        """Collect the store once."""
        job = jobs.Collect("store-uid", TENANT.cluster_id, self.site.described, HOUR)
        return collect.run(job, secrets=self._folders["secrets"], volume=self.site.volume)

    def probe(self) -> Any:
        """Try the store out."""
        return probe.run(self.site.probe(), secrets=self._folders["secrets"], volume=self.site.volume)

    def collect_all(self) -> None:
        """Collect until nothing is left that no backup needs."""
        for _ in range(2):
            self.age()
            self.collect()

    def age(self) -> None:
        """Let two hours pass for everything that is stored."""
        for path in (self.root / "acme").rglob("*"):
            then = path.stat().st_mtime - 2 * HOUR
            os.utime(path, (then, then))

    # What is in the store.

    def load_from(self, template: Path) -> None:
        """Have another store."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(template, self.root)

    @property
    def keys(self) -> Keyring:
        """The tenant's keys."""
        pod = self.site.pod
        recipient = str(pyrage.x25519.Identity.from_str(pod.identity).to_public())
        signing = Ed25519PrivateKey.from_private_bytes(pod.signing_seed)
        return Keyring(IndexKey(pod.index_key), signing, pod.identity, [recipient])

    def manifests(self) -> list[Manifest]:
        """All that is committed."""
        found = sorted((self.root / "acme/manifests").glob("*"))
        return [parse(path.read_bytes()) for path in found]

    def committed(self, uid: str) -> list[str]:
        """The names under which this backup is committed."""
        return [each.backup_id for each in self.manifests() if each.backup.uid == uid]

    def checksum(self, backup_id: str) -> str:
        """What the committed manifest is, as the facts say it."""
        data = (self.root / "acme" / names.manifest(backup_id)).read_bytes()
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def require_whole(self) -> None:
        """Every committed backup has all it names, and gives back what was sent for it."""
        folder = Folder(self.root / "acme")
        for manifest in self.manifests():
            for ref in (*manifest.packs, *manifest.lists):
                name = names.pack(ref.id) if ref in manifest.packs else names.index_pack(ref.id)
                assert folder.length(name) == ref.length
            reader = open_reader(
                folder, self.keys, mounted=self.site.pod.index_key, backup_id=manifest.backup_id
            )
            sent = self.sent[manifest.backup.uid]
            assert read_all(reader) == {segment_id: data for segment_id, (data, _) in sent.items()}

    def state(self) -> Any:
        """What is stored, but for ids and times: what two runs have in common that did the same."""
        # Lengths differ by some bytes: a wrapped key is padded at random.
        facts = [
            (
                each.backup_id,
                each.backup,
                each.rows,
                each.bytes.logical,
                _plain(each.packs),
                _plain(each.lists),
            )
            for each in self.manifests()
        ]
        folders = ("packs", "lists", "keys", "bad", "gc")
        return facts, {name: _files(self.root / "acme" / name) for name in folders}

    # How a pod runs.

    def _new_pod(self) -> None:
        self._connections.clear()
        self._gone.clear()
        for name in ("run", "spool"):
            shutil.rmtree(self._folders[name])
            self._folders[name].mkdir()

    def _together(self, stages: dict[str, Callable[[], Any]]) -> dict[str, Any]:
        """Run stages at once; return what each returned. Raises the Failure that a peer's is not."""
        with ThreadPoolExecutor(len(stages)) as pool:
            futures = {name: pool.submit(self._stage, name, run) for name, run in stages.items()}
        ended = {name: future.result() for name, future in futures.items()}
        failures = [one for one in ended.values() if isinstance(one, Failure)]
        for failure in sorted(failures, key=lambda one: one.reason is Reason.PEER_FAILED):
            raise failure
        return ended

    def _stage(self, name: str, run: Callable[[], Any]) -> Any:
        """Run one stage as `stages.__main__` does: its peers are told when it fails. A bug is raised."""
        try:
            return run()
        except Failure as failure:
            wire.failed_flag(self.site.pod.run, name).write_bytes(encode(Result.of(failure)))
            return failure
        except BaseException:
            wire.failed_flag(self.site.pod.run, name).touch()
            raise
        finally:
            self._hang_up(name)

    def _hang_up(self, name: str) -> None:
        """Do for the stage's peers what the kernel does when its process is gone."""
        with self._lock:
            self._gone.add(name)
            for connection in (each for peer, each in self._connections if peer == name):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def one_at_a_time(patch: pytest.MonkeyPatch) -> None:
    """Have the calls in the same order each time, so that the n-th is the same."""
    patch.setattr(upload, "IN_FLIGHT", 1)
    patch.setattr(verification, "AT_ONCE", 1)
    patch.setattr(examine, "AT_ONCE", 1)
    patch.setattr(examine, "_SEGMENTS_AT_ONCE", 1)
    patch.setattr(base, "_AT_ONCE", 1)


def _dump(acme: Acme, sent: Sent) -> None:
    try:
        dump(acme.site.pod, sent, catalogue_of(sent))
    except OSError:
        raise wire.peer_failed("archive") from None


def _load(acme: Acme, received: dict[str, tuple[bytes, bool]]) -> None:
    """Load segment after segment as the stage does."""
    try:
        control = wire.connect(acme.site.pod.run / "open.sock", "open")
        wire.send(control, {"get": "catalogue"})
        catalogue = wire.Reader(control, "open").message()["catalogue"]
        for segment_id in ["schema", *catalogue["tables"][0]["segments"]]:
            _load_segment(acme, segment_id, received)
        wire.send(control, {"done": True})
    except OSError:
        raise wire.peer_failed("open") from None


def _load_segment(acme: Acme, segment_id: str, received: dict[str, tuple[bytes, bool]]) -> None:
    connection = wire.connect(acme.site.pod.run / "open.sock", "open")
    wire.send(connection, {"get": "segment", "segment": segment_id})
    reader, data = wire.Reader(connection, "open"), b""
    for block in reader.blocks():
        data += block
        received[segment_id] = (data, False)
    with suppress(OSError):
        reader.message()
        received[segment_id] = (data, True)


def _plain(refs: Iterable[ObjectRef]) -> list[int]:
    return sorted(ref.plain for ref in refs)


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
