"""What a server says before it is told anything: the first packet of the protocol, which both families share.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html
"""

from __future__ import annotations

import socket

from MySQLdb import OperationalError

_VERSION = b"\n"  # of the protocol, the only one there is
_ERROR = b"\xff"  # instead of it
_SSL = 0x0800  # among the capabilities
_LOST = 2013  # the client library's number for a connection that broke


def offers_tls(address: str, port: int, timeout: float) -> bool:
    """Whether the server at an address, or at a Unix socket (a path), speaks TLS. Raises OperationalError."""
    try:
        with _connected(address, port, timeout) as connection, connection.makefile("rb") as stream:
            header = stream.read(4)
            packet = stream.read(int.from_bytes(header[:3], "little"))
    except OSError as error:
        raise OperationalError(_LOST, f"no greeting: {error.strerror or error}") from error
    if packet[:1] == _ERROR:
        raise OperationalError(int.from_bytes(packet[1:3], "little"), packet[3:].decode("utf-8", "replace"))
    # Version of the protocol, of the server; number of the session (4), 8 random bytes, a zero, capabilities.
    at = packet.find(b"\0", 1) + 1 + 4 + 8 + 1
    if packet[:1] != _VERSION or len(packet) < at + 2:
        raise OperationalError(_LOST, "no greeting: it is no server of this kind, or has ended")
    return bool(int.from_bytes(packet[at : at + 2], "little") & _SSL)


def _connected(address: str, port: int, timeout: float) -> socket.socket:
    if not address.startswith("/"):
        return socket.create_connection((address, port), timeout=timeout)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    connection.connect(address)
    return connection
