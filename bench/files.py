"""A volume with large files and many small ones against tar and what people pipe it into, on this machine."""

from __future__ import annotations

import os
import random
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyrage

from hack.lab.chain import Chain, facts
from tenant_backup.contract import job as jobs

from .figures import Figures
from .stages import seconds, shell, store

_PIPE = "tar -cf - . | zstd -3 -c | openssl enc -aes-256-ctr -K $KEY -iv $IV | sha256sum"
_SMALL = 100_000  # files
_SMALL_BYTES = 1500  # of each
_LARGE_BYTES = 64 << 20  # of each
_FOLDERS = 500
_REST = 61  # seconds: what changed less than a minute ago is read again by the next backup
_TENANT = jobs.Tenant("bench", "default", "files", "files")


def measure(figures: Figures, size: float, runs: int) -> None:
    """A full backup, and one of which nothing has changed, against the same pipe, alternately.

    Of a volume with 2.5 times `size` in large files: what people upload outweighs what they type.
    """
    with _volume(2.5 * size) as volume:
        theirs, full, unchanged = [], [], []
        for _ in range(runs):
            theirs.append(seconds(volume.pipe))
            full.append(seconds(lambda: volume.back_up("Full")))
            unchanged.append(seconds(lambda: volume.back_up("Incremental")))
        figures.add("files_full_seconds", "seconds", full)
        figures.add_ratio("files_full_vs_tar_pipe", theirs, full)
        figures.add("files_unchanged_seconds", "seconds", unchanged)
        figures.add_ratio("files_unchanged_vs_tar_pipe", theirs, unchanged)
        figures.add("files_unchanged_added_share", "share", [volume.added / volume.stored])
        figures.add("rss_gather", "bytes", volume.peaks, max)


@contextmanager
def _volume(size: float) -> Iterator[_Volume]:
    """A volume with 100,000 small files and `size` GB of large ones; it goes away."""
    with store(size) as folder:
        print(f"Files: writing {_SMALL} small ones and {size:g} GB of large ones …", flush=True)
        volume = _Volume(Path(folder))
        volume.fill(int(size * 1e9 / _LARGE_BYTES))
        time.sleep(_REST)
        yield volume


class _Volume:
    """Backs that volume up."""

    def __init__(self, folder: Path) -> None:
        self._chain = Chain(folder)
        self._top = folder / "files" / "uploads"
        self._identity = pyrage.x25519.Identity.generate()
        self._chain.write_keys()
        self.added = self.stored = 0  # bytes, of the last backup
        self.peaks: list[float] = []  # bytes of memory, of each backup's `gather`

    def fill(self, large: int) -> None:
        """Write so many large files, half of them text and half as photos are, and the small ones."""
        chance = random.Random(1)
        for number in range(_FOLDERS):
            (self._top / f"{number:03}").mkdir(parents=True)
        for number in range(large):
            with (self._top / f"large{number:03}").open("wb") as file:
                for _ in range(_LARGE_BYTES >> 20):
                    file.write(chance.randbytes(1 << 20) if number % 2 else _text(chance, 1 << 20))
        for number in range(_SMALL):
            path = self._top / f"{number % _FOLDERS:03}" / f"record-{number:06}.json"
            path.write_bytes(_text(chance, _SMALL_BYTES))

    def pipe(self) -> None:
        """Run the rival's command line."""
        shell(_PIPE, os.environ, self._top)

    def back_up(self, mode: Literal["Full", "Incremental"]) -> None:
        """Make one backup; of those before only the one that this builds on stays."""
        if mode == "Full":
            shutil.rmtree(self._chain.folder / "store", ignore_errors=True)
        job = jobs.Backup(
            uid=uuid.uuid4().hex,
            backup_id=f"files_{time.time_ns()}",
            name="bench",
            tenant=_TENANT,
            database=jobs.NO_DATABASE,
            store=jobs.Store("volume"),
            recipients=[str(self._identity.to_public())],
            mode=mode,
            verify=False,  # the rival reads nothing back either
            files=[jobs.Volume("uploads", "uploads", 0, 0)],
        )
        ended = self._chain.run(job, seconds=1800)
        sizes = facts(ended, "upload")["bytes"]
        self.added, self.stored = sizes["added"], sizes["stored"]
        self.peaks.append(float(ended["gather uploads"].peak_rss))


def _text(chance: random.Random, length: int) -> bytes:
    """Return what compresses about 3:1, as rows of the other benches do."""
    digits = chance.randbytes(length // 4).hex()
    words = (digits[at : at + 32] for at in range(0, len(digits), 32))
    return " is what we agreed upon in the meeting, ".join(words).encode()[:length]
