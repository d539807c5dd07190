"""Where no receiver may be: whoever may create notifiers must not reach, through us, what only we can reach.

The address that is connected to is looked at, not the name: a name may stand for another address a moment
later.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AddressInformation = tuple[Any, Any, int, str, tuple[Any, ...]]  # as getaddrinfo returns it

# The node and its cloud: their metadata gives credentials to whoever asks from inside.
REFUSED = (
    "127.0.0.0/8",
    "::1/128",
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::254/128",
    "0.0.0.0/32",
    "::/128",
)


class RefusedAddressError(OSError):
    """An address in a network where no receiver may be."""


@dataclass(frozen=True)
class Networks:
    """Networks that are never connected to."""

    refused: tuple[_Network, ...]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Networks:
        """Return the networks with these CIDRs. Raises ValueError."""
        return cls(tuple(ipaddress.ip_network(text) for text in texts))

    def socket_for(self, information: AddressInformation) -> socket.socket:
        """Return a socket for an address that is allowed. Raises RefusedAddressError."""
        family, kind, protocol, _, address = information
        found = ipaddress.ip_address(str(address[0]).partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None) or found
        if any(mapped in network for network in self.refused):
            raise RefusedAddressError(errno.EACCES, "refused network")
        return socket.socket(family, kind, protocol)

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return a connection to the first address of `host` that answers. Raises OSError."""
        loop = asyncio.get_running_loop()
        error: OSError = ConnectionRefusedError()
        for information in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connection = self.socket_for(information)
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, information[4])
            except OSError as failed:
                connection.close()
                error = failed
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise error
