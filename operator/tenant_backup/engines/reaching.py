"""What every engine needs to reach a server: mounted Secrets, and one address for all connections."""

from __future__ import annotations

import socket
import time

from tenant_backup.contract import paths
from tenant_backup.contract.job import Database
from tenant_backup.contract.reasons import Failure, Reason


def credentials(folder: str, secret: str) -> tuple[str, str]:
    """Read username and password below paths.SECRETS. Raises SECRET_NOT_FOUND or KEY_MISSING by name."""
    return _value(folder, "username", secret), _value(folder, "password", secret)


def administrators_credentials(database: Database) -> tuple[str, str]:
    """Likewise for who may create databases. Raises SECRET_NOT_FOUND or KEY_MISSING by name."""
    mounted = paths.SECRETS / paths.ADMIN
    if not database.admin_secret and not (mounted.is_dir() and any(mounted.iterdir())):
        message = (
            "the Tenant names no adminCredentialsSecretRef, and a restore has to create a database; add it"
        )
        raise Failure(Reason.SECRET_NOT_FOUND, message)
    return credentials(paths.ADMIN, database.admin_secret)


def root_certificate(database: Database) -> str:
    """Return the path of the authority that signed the server's certificate, empty when nobody asks for it.

    Raises Failure(KEY_MISSING).
    """
    if database.tls_mode != "VerifyFull":
        return ""
    path = paths.SECRETS / paths.DATABASE_CA / "ca.crt"
    if not path.exists():
        message = 'tls.mode VerifyFull needs the key "ca.crt" in the Secret of tls.caSecretRef; add it'
        raise Failure(Reason.KEY_MISSING, message)
    return str(path)


def resolve(host: str, port: int, patience: float) -> str:
    """Return the first address of `host` that accepts a connection, the first of all when none does.

    A name that stands for several servers would open the sessions of one backup on different ones. Empty for
    a Unix socket. Waits `patience` seconds for a name to appear. Raises Failure(DATABASE_UNREACHABLE).
    """
    if host.startswith("/"):
        return ""
    give_up = time.monotonic() + patience
    while True:
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            return next((address for address in found[:8] if _accepts(address, port, found)), found[0])
        except OSError as error:
            line = error.strerror or str(error)
        if time.monotonic() > give_up:
            raise unreachable(host, port, line)
        time.sleep(0.5)


def unreachable(host: str, port: int, line: str) -> Failure:
    """The failure of a server that did not answer in time."""
    advice = "check host and port, and that the server runs and may be reached from this namespace"
    return Failure(Reason.DATABASE_UNREACHABLE, f"{host}:{port} does not answer: {line}; {advice}")


def _value(folder: str, key: str, secret: str) -> str:
    mounted = paths.SECRETS / folder
    shown = f'"{secret}"' if secret else f"for {folder} credentials"
    # The kubelet mounts a Secret that is not there as a folder with nothing but its own dot files.
    if not mounted.is_dir() or all(entry.name.startswith("..") for entry in mounted.iterdir()):
        message = f"Secret {shown} was not found; create it with the keys username and password"
        raise Failure(Reason.SECRET_NOT_FOUND, message)
    try:
        return (mounted / key).read_text().rstrip("\r\n")
    except FileNotFoundError:
        message = f'Secret {shown} has no key "{key}"; add it'
        raise Failure(Reason.KEY_MISSING, message) from None


def _accepts(address: str, port: int, found: list[str]) -> bool:
    if len(found) == 1:
        return True  # nothing to choose from: the connection itself will tell
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True
