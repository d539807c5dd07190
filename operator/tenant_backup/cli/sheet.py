"""`recovery-sheet`: one page to print, and all that somebody needs beside it when everything else is lost."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from tenant_backup.archive.manifest import Manifest
from tenant_backup.contract.reasons import Failure, Reason

_SHEET = """\
# Recovery sheet of {tenant}

Made from backup `{backup}` of {completed}. Print it, and keep it where the cluster and the store are not.

| what | value |
|---|---|
| tenant | `{tenant}` |
| slug | `{slug}` |
| store | `{url}` |
| public signing key | `{trust}` |
| key id | `{key_id}` |
| encrypted for | {recipients} |

Also keep, each in a place of its own:

- the **identity**: the file with `AGE-SECRET-KEY-1…` of one of the recipients above; without it nobody can
  read a row;
- the **access key of the store**, as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` for an S3 store.

The public signing key is no secret. Believe it only as it stands here: it tells your backups from forgeries.

## What to do

On any machine with `tenant-backup` and {programs}, with the identity in `key.txt`:

```sh
# which backups there are
tenant-backup list '{url}' --trust {trust}
# is the newest one what was written
tenant-backup verify '{url}' latest --trust {trust} --identity key.txt
# into a new database (the password is asked for)
tenant-backup restore '{url}' latest --trust {trust} --identity key.txt \\
  --host HOST {login} --database {database}
# or as plain SQL, for {client}
tenant-backup export '{url}' latest --trust {trust} --identity key.txt
```

To go on with backups of this tenant in a new cluster, bring its keys back before the Tenant is made anew:

```sh
tenant-backup recover-keys '{url}' --trust {trust} --identity key.txt > keys.yaml
```

Without the program: `docs/FORMAT.md` of the project says byte by byte what is in the store.
"""

# What is the database server's own.
_SERVERS = {
    "PostgreSQL": {
        "programs": "the PostgreSQL client programs",
        "login": "--user postgres",
        "client": "psql",
    },
    "MariaDB": {
        "programs": "its extra `mariadb`",
        "login": "--user root --owner ACCOUNT --owner-password-file FILE",
        "client": "mariadb",
    },
    "MySQL": {
        "programs": "its extra `mariadb`",
        "login": "--user root --owner ACCOUNT --owner-password-file FILE",
        "client": "mysql",
    },
}


def sheet(url: str, trust: str, manifest: Manifest) -> str:
    """Return the sheet as Markdown; `trust` is the key that signed `manifest`."""
    owner, encryption = manifest.tenant, manifest.encryption
    return _SHEET.format(
        tenant=f"{owner.namespace}/{owner.name}",
        backup=manifest.backup_id,
        completed=manifest.times.completed,
        slug=owner.slug,
        url=url,
        trust=f"ed25519:{trust}",
        key_id=encryption.key_id,
        recipients=", ".join(f"`{text}`" for text in encryption.recipients) or "nobody: it is not encrypted",
        database=f"{owner.slug.replace('-', '_')}_restored",
        **_SERVERS.get(manifest.server.engine, _SERVERS["PostgreSQL"]),
    )


@dataclass(frozen=True)
class InCluster:
    """A Tenant object, asked of a cluster that is still there."""

    namespace: str
    name: str

    def signing_key(self) -> str:
        """Return status.signingKey (hex), by kubectl. Raises Failure."""
        command = [
            "kubectl",
            "get",
            "tenants.tenantbackup.dev",
            "-n",
            self.namespace,
            self.name,
            "-o",
            "json",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            message = "kubectl is not installed; install it, or give the key with --trust"
            raise Failure(Reason.TENANT_NOT_FOUND, message) from None
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2]
            message = f"kubectl could not get Tenant {self.namespace}/{self.name}: {said}"
            raise Failure(Reason.TENANT_NOT_FOUND, message)
        key = json.loads(done.stdout).get("status", {}).get("signingKey")
        if not key:
            message = (
                f"Tenant {self.namespace}/{self.name} has no status.signingKey yet; wait until it is Ready"
            )
            raise Failure(Reason.TENANT_NOT_READY, message)
        return str(key)
