"""Which containers each kind of Job has, and what each of them may see.

This table is the promise about credentials: the container that talks to the database holds no store
credentials and no key; the one that encrypts holds neither; the one that uploads sees only ciphertext.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tenant_backup.contract import job as contract
from tenant_backup.contract import paths
from tenant_backup.decisions.plan import Purpose, Run

Secret = Literal["database", "database-ca", "admin", "store", "store-ca", "keys", "identity"]
DATABASE: tuple[Secret, ...] = (paths.DATABASE, paths.DATABASE_CA)  # type: ignore[assignment]
STORE: tuple[Secret, ...] = (paths.STORE, paths.STORE_CA)  # type: ignore[assignment]


@dataclass(frozen=True)
class Container:
    """One container: its stage, what it mounts, and its memory in MiB."""

    stage: str
    secrets: tuple[Secret, ...]
    request: int  # MiB
    limit: int  # MiB; what it holds in memory volumes counts too
    run: bool = False  # sockets and small JSON, shared by all containers
    spool: bool = False  # a few packs, shared by two containers
    scratch: bool = False  # private, in memory: passfile, pg_dump output
    volume: Literal["", "ro", "rw"] = ""  # the store's volume, if it is one
    initial: bool = False
    files: contract.Volume | None = None  # the tenant's volume that it mounts, as its user and group

    @property
    def name(self) -> str:
        """Its name in the pod."""
        return self.files.container(self.stage) if self.files else self.stage

    @property
    def arguments(self) -> list[str]:
        """What its stage is told to be."""
        return [self.stage, self.files.name] if self.files else [self.stage]


BACKUP = (
    Container("prepare", STORE, 48, 256, run=True, spool=True, volume="rw", initial=True),
    Container("dump", DATABASE, 64, 768, run=True, scratch=True),
    Container("archive", ("keys",), 96, 512, run=True, spool=True),
    Container("upload", STORE, 64, 512, run=True, spool=True, volume="rw"),
)
RESTORE = (
    Container("download", STORE, 64, 512, run=True, spool=True, volume="ro"),
    Container("open", ("keys", "identity"), 96, 512, run=True, spool=True),
    Container("load", (*DATABASE, "admin"), 64, 1024, run=True, scratch=True),
)
SWAP = (Container("swap", ("admin", "database-ca"), 48, 256, scratch=True),)
PREFLIGHT = (Container("preflight", DATABASE, 48, 256, scratch=True),)
PROBE = (Container("probe", STORE, 48, 256, volume="rw"),)
DELETE = (Container("delete", STORE, 48, 512, volume="rw"),)  # reads all the tenant's manifests, one by one
COLLECT = (Container("collect", STORE, 64, 512, volume="rw"),)
CATALOGUE = (Container("catalogue", STORE, 64, 512, volume="ro"),)
INSPECT = (Container("inspect", STORE, 48, 256, volume="ro"),)
VERIFY = (
    Container("download", STORE, 64, 512, run=True, spool=True, volume="rw"),  # writes marks on what is bad
    Container("examine", ("keys", "identity"), 96, 512, run=True, spool=True),
)

CONTAINERS: dict[Purpose, tuple[Container, ...]] = {
    "backup": BACKUP,
    "restore": RESTORE,
    "swap": SWAP,
    "preflight": PREFLIGHT,
    "probe": PROBE,
    "delete": DELETE,
    "collect": COLLECT,
    "catalogue": CATALOGUE,
    "inspect": INSPECT,
    "verify": VERIFY,
}

# Whose facts are the Job's, and who prints progress.
SPOKESMAN: dict[str, str] = {
    "backup": "upload",
    "restore": "load",
    "swap": "swap",
    "preflight": "preflight",
    "probe": "probe",
    "delete": "delete",
    "collect": "collect",
    "catalogue": "catalogue",
    "inspect": "inspect",
    "verify": "examine",
}
PLACE, SWITCH, SURVEY = "place", "switch", "survey"
FILL = (PLACE, SWITCH)  # whoever writes to a tenant's volume
PROGRESS: dict[str, str] = {"backup": "archive", "restore": "load", "verify": "examine"}

_GATHER = Container("gather", (), 48, 256, run=True)
_PLACE = Container(PLACE, (), 48, 256, run=True)
_SWITCH = Container(SWITCH, (), 48, 256)
_SURVEY = Container(SURVEY, (), 48, 256)
_OF_VOLUMES = {
    contract.Backup: _GATHER,
    contract.Restore: _PLACE,
    contract.Swap: _SWITCH,
    contract.Preflight: _SURVEY,
}


def containers_of(run: Run) -> tuple[Container, ...]:
    """Return the containers of a Job: none for a database it is not about, one for each volume it is."""
    job, containers = run.job, CONTAINERS[run.purpose]
    if not isinstance(job, contract.Backup | contract.Restore | contract.Swap | contract.Preflight):
        return containers
    alone = () if job.database.engine else ("dump", "load", "swap", "preflight")
    kept = tuple(container for container in containers if container.stage not in alone)
    return (*kept, *(replace(_OF_VOLUMES[type(job)], files=volume) for volume in job.files))
