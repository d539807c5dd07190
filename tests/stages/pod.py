"""A pod for one stage on this machine: its folders, its process, and peers that are processes too.

The peers speak the sockets of docs/ARCHITECTURE.md and do no more: `upload` and `download` keep objects
in a folder, `dump` sends the segments it is given.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Reason
from tenant_backup.contract.results import Result, decode
from tenant_backup.stages import wire

BACKUP_ID = "acme_2024-01-15_14-30-25"
TENANT = jobs.Tenant("cluster-1", "default", "acme", "acme")
FOREVER = 60  # seconds; longer than anything here lasts, shorter than a test's limit
_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Ended:
    """How a stage's process ended."""

    code: int
    result: Result

    @property
    def reason(self) -> Reason:
        """Why it failed."""
        return self.result.reason


@dataclass
class Stage:
    """A stage's process."""

    process: subprocess.Popen[bytes]
    message: Path

    def ended(self) -> Ended:
        """Wait for the end; a stage that hangs fails the test."""
        code = self.process.wait(FOREVER)
        result = decode(self.message.read_text())
        assert result is not None
        return Ended(code, result)


@dataclass
class Pod:
    """Folders as in a pod, and a folder that stands for the store."""

    root: Path
    identity: str = field(default_factory=lambda: str(pyrage.x25519.Identity.generate()))
    signing_seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    index_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    started: list[Any] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """Where the sockets are."""
        return self.root / "run/tenant-backup"

    @property
    def objects(self) -> Path:
        """The tenant's objects."""
        return self.root / "objects"

    @property
    def manifest(self) -> Path:
        """The commit."""
        return self.objects / "manifests" / BACKUP_ID

    def secret(self, folder: str, name: str, value: bytes) -> None:
        """Mount a Secret's key."""
        (self.root / "secrets" / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "secrets" / folder / name).write_bytes(value)

    def prepare(
        self,
        *,
        committed: dict[str, Any] | None = None,
        keys: tuple[str, ...] = (),
        backup_id: str = BACKUP_ID,
        base: dict[str, Any] | None = None,
    ) -> None:
        """Do what the init container does; with it begins a new pod, whose run folder is empty."""
        for stale in self.run.glob("*.alive"):
            stale.unlink()
        document = {
            "backupId": backup_id,
            "keys": list(keys),
            "committed": committed,
            "base": base,
            "began": time.clock_gettime(time.CLOCK_BOOTTIME),
        }
        (self.run / "prepared.json").write_text(json.dumps(document))

    def backup_job(self, *, only_modules: tuple[str, ...] = ()) -> jobs.Backup:
        """A backup of tenant acme."""
        recipient = str(pyrage.x25519.Identity.from_str(self.identity).to_public())
        return jobs.Backup(
            uid="uid-1",
            backup_id=BACKUP_ID,
            name="acme-1",
            tenant=TENANT,
            database=jobs.Database("PostgreSQL", "localhost", 5432, "acme"),
            store=jobs.Store("volume"),
            recipients=[recipient],
            modules=[jobs.Module("hr", ["public.t"])],
            only_modules=list(only_modules),
        )

    def restore_job(self, **changes: Any) -> jobs.Restore:
        """A restore of that backup."""
        key = Ed25519PrivateKey.from_private_bytes(self.signing_seed).public_key().public_bytes_raw().hex()
        values: dict[str, Any] = {
            "uid": "uid-2",
            "name": "restore-1",
            "strategy": "NewDatabase",
            "source": TENANT,
            "tenant": TENANT,
            "database": jobs.Database("PostgreSQL", "localhost", 5432, "acme"),
            "target_database": "acme_copy",
            "store": jobs.Store("volume"),
            "backup_id": BACKUP_ID,
            "manifest_sha256": "",
            "signing_key": key,
            "identity_secret": "acme-identity",
        }
        return jobs.Restore(**(values | changes))

    def start(self, stage: str, job: jobs.Job) -> Stage:
        """Start one stage as its container would."""
        message = self.root / "dev/termination-log"
        message.write_bytes(b"")
        environment = {
            **os.environ,
            jobs.ENVIRONMENT_VARIABLE: jobs.to_json(job),
            "TENANT_BACKUP_ROOT": str(self.root),
        }
        command = [sys.executable, "-m", "tenant_backup.stages", stage]
        with (self.root / "output").open("wb") as output:
            running = Stage(subprocess.Popen(command, env=environment, stdout=output), message)
        self.started.append(running.process)
        return running

    def peer(self, work: Callable[..., None], *arguments: Any) -> Any:
        """Start a peer as a process of its own; it may be killed by its pid."""
        process = _fork.Process(target=work, args=(self, *arguments), daemon=True)
        process.start()
        self.started.append(process)
        return process

    def forget_cluster_keys(self) -> None:
        """The cluster is lost."""
        shutil.rmtree(self.root / "secrets/keys")

    def close(self) -> None:
        """Kill what still runs and remove the folders."""
        for process in self.started:
            process.kill()
            process.wait() if isinstance(process, subprocess.Popen) else process.join()
        shutil.rmtree(self.root)


@contextmanager
def new_pod() -> Iterator[Pod]:
    """A pod with all its Secrets. Its path is short: a Unix socket's path has at most 107 bytes."""
    pod = Pod(Path(tempfile.mkdtemp(prefix="tb")))
    for folder in ("run/tenant-backup", "spool", "dev", "objects"):
        (pod.root / folder).mkdir(parents=True)
    pod.secret("keys", "indexKey", pod.index_key)
    pod.secret("keys", "signingKey", pod.signing_seed)
    pod.secret("identity", "identity", pod.identity.encode())
    try:
        yield pod
    finally:
        pod.close()


def kill(process: Any) -> None:
    """End a peer as the kernel's memory killer would."""
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def upload(pod: Pod, die_after: int = -1, hold_commit: bool = False) -> None:
    """Keep what `archive` puts; with `die_after` go away after so many objects."""
    connection, _ = wire.listen(pod.run / "upload.sock").accept()
    reader = wire.Reader(connection, "archive")
    stored = 0
    while stored != die_after:
        message = reader.message()
        request = message.get("put") or message["commit"]
        target = pod.objects / request["name"]
        if "commit" in message and hold_commit:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        data = Path(request["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (request["length"], request["sha256"])
        target.write_bytes(data)
        Path(request["path"]).unlink()
        stored += 1
        if "commit" in message:
            (pod.root / "facts.json").write_text(json.dumps(request["facts"]))
            wire.send(connection, {"committed": {"sha256": request["sha256"]}})
            return
        wire.send(connection, {"stored": request["name"]})


def download(pod: Pod) -> None:
    """Give out objects until `open` says that it is done; as every real one, ignore what is in them."""
    server = wire.listen(pod.run / "download.sock")
    done = threading.Event()
    spool = pod.root / "spool"

    def serve(connection: socket.socket) -> None:
        reader = wire.Reader(connection, "open")
        while (message := reader.message_or_end()) is not None and not done.is_set():
            if message.get("done"):
                done.set()
            elif "stat" in message:
                path = pod.objects / message["stat"]
                wire.send(connection, {"length": path.stat().st_size if path.exists() else None})
            else:
                copy = spool / secrets.token_hex(8)
                shutil.copyfile(pod.objects / message["get"], copy)
                wire.send(connection, {"path": str(copy), "length": copy.stat().st_size, "sha256": ""})

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    done.wait()


Sent = dict[str, tuple[bytes, int | None]]  # segment id -> bytes, rows the server said


def dump(pod: Pod, segments: Sent, catalogue: dict[str, Any], listed: list[str] | None = None) -> None:
    """Send segments over one data connection each, then the catalogue; wait until it is committed."""
    control = connect_dump(pod, "control")
    wire.send(control, {"plan": {"bytes": sum(len(data) for data, _ in segments.values())}})
    for segment_id, (data, rows) in segments.items():
        connection = connect_dump(pod, "data")
        send_segment(connection, segment_id, data, rows)
        wire.send(connection, {"end": True})
    wire.send(control, {"catalogue": catalogue})
    wire.send(control, {"done": True, "segments": list(segments) if listed is None else listed})
    assert wire.Reader(control, "archive").message() == {"done": True}


def connect_dump(pod: Pod, kind: str) -> socket.socket:
    """Connect to `archive` as `dump` does."""
    connection = wire.connect(pod.run / "archive.sock", "archive")
    wire.send(connection, {"connection": kind})
    return connection


def send_segment(connection: socket.socket, segment_id: str, data: bytes, rows: int | None) -> None:
    """Send one segment with its verdict."""
    marker = wire.new_marker()
    kind = "blob" if segment_id == "schema" else "rows"
    table = None if segment_id == "schema" else "public.t"
    wire.send(connection, {"segment": segment_id, "kind": kind, "table": table, "marker": marker.hex()})
    connection.sendall(data)
    wire.send_marker(connection, marker)
    wire.send(connection, {"rows": rows})


def catalogue_of(segments: Sent) -> dict[str, Any]:
    """The catalogue that fits these segments."""
    tables = [name for name in segments if name != "schema"]
    rows = sum(rows or 0 for _, rows in segments.values())
    return {
        "tables": [{"name": "public.t", "rows": rows, "segments": tables}],
        "modules": ["hr"],
        "server": {"engine": "PostgreSQL", "version": "17.2"},
        "snapshotAt": "2024-01-15T14:30:26Z",
    }
