"""A real S3 server (versitygw on a directory) for tests, on loopback, and a proxy that breaks its answers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hack.localcluster import builds, settings

BUCKET = "backups"
ROOT = ("root-access", "root-secret-1")
WRITER = ("writer-access", "writer-secret-1")  # may list, read and write, not delete
READER = ("reader-access", "reader-secret-1")  # may list and read


def binary() -> Path:
    """Return the pinned versitygw, building it once if nobody has."""
    folder = builds.VERSITYGW.folder()
    if not folder.is_dir():
        with settings.LOCK.open("w") as lock:  # the cluster's own: it may be building the same
            fcntl.flock(lock, fcntl.LOCK_EX)
            builds.ensure((builds.VERSITYGW,))
    return folder / "versitygw"


@dataclass
class S3Server:
    """One server process and its folders; `stop` and `start` keep the data."""

    folder: Path
    data: Path
    port: int = 0
    tls: tuple[Path, Path] | None = None  # certificate, key
    accounts: bool = True  # False: single account mode, as in the demo
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        """Where it is, as a BackupStore would say."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port as before; return when it listens."""
        self.port = self.port or free_port()
        tls = ["--cert", str(self.tls[0]), "--key", str(self.tls[1])] if self.tls else []
        iam = ["--iam-dir", str(self.folder / "iam")] if self.accounts else []
        listen = ["--quiet", "--port", f"127.0.0.1:{self.port}"]
        command = [str(binary()), *listen, *iam, *tls, "posix", str(self.data)]
        credentials = {"ROOT_ACCESS_KEY": ROOT[0], "ROOT_SECRET_KEY": ROOT[1]}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **credentials}, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_it_listens()

    def stop(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _wait_until_it_listens(self) -> None:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())


@contextmanager
def running(
    folder: Path, *, data: Path | None = None, tls: tuple[Path, Path] | None = None, accounts: bool = True
) -> Iterator[S3Server]:
    """A server with one bucket and the users above, for the time of the block."""
    server = S3Server(folder, data or folder / "data", tls=tls, accounts=accounts)
    for needed in (server.folder / "iam", server.data / BUCKET):
        needed.mkdir(parents=True, exist_ok=True)
    users = {
        access: {"access": access, "secret": secret, "role": "user", "userID": 0, "groupID": 0}
        for access, secret in (WRITER, READER)
    }
    (folder / "iam" / "users.json").write_text(json.dumps({"accessAccounts": users}))
    os.setxattr(server.data / BUCKET, "user.policy", json.dumps(_policy()).encode())
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.data / BUCKET, ignore_errors=True)


def _policy() -> dict[str, object]:
    everything = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]

    def allow(user: str, *actions: str) -> dict[str, object]:
        return {
            "Effect": "Allow",
            "Principal": {"AWS": [user]},
            "Action": [f"s3:{action}" for action in actions],
            "Resource": everything,
        }

    return {
        "Version": "2012-10-17",
        "Statement": [
            allow(WRITER[0], "GetObject", "ListBucket", "PutObject"),
            allow(READER[0], "GetObject", "ListBucket"),
        ],
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """TCP in front of a server, with faults: `request` and `answer` may change or drop what passes.

    Each gets one block of bytes as it came from the socket and returns what to send on, or None to
    cut the connection.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.request: Callable[[bytes], bytes | None] = lambda block: block
        self.answer: Callable[[bytes], bytes | None] = lambda block: block
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """The faulty way, as a BackupStore would say it."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for start, end, change in (
                (client, server, lambda block: self.request(block)),  # noqa: PLW0108 - may change later
                (server, client, lambda block: self.answer(block)),  # noqa: PLW0108 - may change later
            ):
                threading.Thread(target=_pump, args=(start, end, change), daemon=True).start()


def _pump(start: socket.socket, end: socket.socket, change: Callable[[bytes], bytes | None]) -> None:
    with suppress(OSError):
        while (block := start.recv(1 << 16)) and (changed := change(block)) is not None:
            end.sendall(changed)
    for side in (start, end):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
