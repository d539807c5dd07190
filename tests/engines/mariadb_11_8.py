"""A real MariaDB 11.8, for tests: out of its test image, on this machine's loopback, in a folder of its own."""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from hack.lab.roots import USER, inside, root
from tests.engines.mariadb import INSTALLED, MariaDB


@dataclass
class MariaDB118(MariaDB):
    """One server of the newer version; it has TLS without being told to."""

    image: Path = field(default_factory=functools.partial(root, "test-mariadb:11.8"))

    def prepare(self) -> None:
        """Make the data directory."""
        os.chown(self.folder, USER, USER)
        how = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        command = [*self.inside, "mariadb-install-db", "--no-defaults", *self.places, *how]
        subprocess.run(command, check=True, capture_output=True)

    @property
    def daemon(self) -> list[str]:
        """The server's program and its options."""
        return [*self.inside, str(INSTALLED), "--no-defaults", "--innodb-flush-log-at-trx-commit=0"]

    @property
    def inside(self) -> list[str]:
        """What stands before a program of the image."""
        return inside(self.image, self.folder)
