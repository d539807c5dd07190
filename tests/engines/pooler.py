"""A real PgBouncer of this machine, for tests: on loopback, before a server of the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tenant_backup.contract.job import Database

from .server import PASSWORDS, Server, free_port

INSTALLED = Path("/usr/sbin/pgbouncer")
_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = {mode}
ignore_startup_parameters = {ignored}
"""


@contextlib.contextmanager
def pooler(server: Server, database: Database, mode: str, ignored: str) -> Iterator[Database]:
    """Run PgBouncer in this mode; yield the database as a job description names it there."""
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="tb-bouncer-"))
    users = "".join(f'"{name}" "{password}"\n' for name, password in PASSWORDS.items())
    (folder / "users").write_text(users)
    text = _CONFIGURATION.format(server=server.port, port=port, folder=folder, mode=mode, ignored=ignored)
    (folder / "pgbouncer.ini").write_text(text)
    folder.chmod(0o755)
    as_postgres = ["--user", "postgres"] if os.getuid() == 0 else []
    command = [str(INSTALLED), "--quiet", *as_postgres, str(folder / "pgbouncer.ini")]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not _listens(port):
            assert child.poll() is None, "pgbouncer ended"
            time.sleep(0.01)
        yield replace(database, port=port)
    finally:
        child.kill()
        child.wait()
        shutil.rmtree(folder)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
