"""The commands and their options. What each does is in a module of its own, imported when it is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

import tenant_backup
from tenant_backup.archive.key_finder import KeyFinder
from tenant_backup.contract.reasons import Failure, Reason

from . import console, options
from .chosen import Chosen, chosen
from .opened import LATEST, kept, kept_one, reading, resolve, small
from .options import Access
from .private import private_folder
from .server import PORTS, Login, Server, SignIn, owner_of, server_login

_EPILOG = """\b
Exit codes:
  0    done
  1    damaged, refused or failed; the message says what to do
  2    the command was not understood
  75   the store or the server cannot be reached now; try again
  130  interrupted; nothing was left behind
"""


_BACKUP_ID = click.argument("backup_id", metavar="BACKUP-ID")


class _Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
        self.epilog = f"\b\nExamples:\n{lines}" if lines else None


class _Commands(click.Group):
    """Commands in the order of their definition: what is needed first stands first."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """See click.Group."""
        return list(self.commands)


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(tenant_backup.__version__, prog_name="tenant-backup")
def commands() -> None:
    """Backups of tenants' databases and files, without a cluster: list, verify, restore, export, make.

    STORE-URL is s3://bucket/prefix/slug?endpoint=https://…&region=… or file:///path/prefix/slug. The keys of
    an S3 store are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a file (--credentials).

    BACKUP-ID is a name that `list` shows, or `latest`.
    """


@commands.command(
    "list",
    examples="""
tenant-backup list file:///mnt/backups
tenant-backup list 's3://backups/prod/acme?endpoint=https://s3.example.com' --trust ed25519:5a1f…
""",
)
@options.access(identity=False)
@options.as_json
def list_(access: Access, as_json: bool) -> int:
    """List the backups of a tenant, or the tenants of a store.

    With --trust, each signature is checked; a wrong one ends with exit code 1.
    """
    from . import listing

    with private_folder() as folder:
        store = options.reach(access, folder)
        if not listing.is_tenant(store):
            found = listing.tenants(store)
            if not found:
                message = f"there is neither a tenant nor a backup in {access.where.url}; correct it"
                raise Failure(Reason.BACKUP_NOT_FOUND, message)
            _show(as_json, {"tenants": found}, listing.tenants_table(found))
            return 0
        backups = kept(store, access.trust)
    document = {"backups": [listing.described(backup) for backup in backups]}
    _show(as_json, document, listing.backups_table(backups))
    return int(listing.anything_wrong(backups))


@commands.command(
    examples="""
tenant-backup inspect file:///mnt/backups/acme latest --trust ed25519:5a1f…
tenant-backup inspect file:///mnt/backups/acme acme_2024-01-15_14-30-25 --identity key.txt --json
"""
)
@options.access()
@_BACKUP_ID
@options.as_json
def inspect(access: Access, backup_id: str, as_json: bool) -> int:
    """Show one backup in words; with --identity also its tables and volumes."""
    from . import inspecting

    identity = options.read_identity(access.identity_file)[0] if access.identity_file else None
    with options.opened(access) as opened:
        backup = kept_one(opened.store, resolve(opened.store, backup_id, access.trust), access.trust)
        manifest, catalogue = backup.manifest, None
        if manifest is None:
            raise Failure(Reason.CHECKSUM_MISMATCH, f"{backup.backup_id}: {backup.trouble}")
        if identity is not None:
            with reading(manifest, identity, opened.store, opened.spool, lambda _: None) as reader:
                catalogue = reader.catalogue()
    told = (manifest, backup.sha256, console.SIGNATURE[backup.signed], catalogue)
    _show(as_json, inspecting.described(*told), inspecting.in_words(*told))
    return int(backup.signed is False)


@commands.command(
    examples="""
tenant-backup verify file:///mnt/backups/acme latest --trust ed25519:5a1f…
tenant-backup verify file:///mnt/backups/acme latest --trust ed25519:5a1f… --identity key.txt
"""
)
@options.access(trust_store=True)
@_BACKUP_ID
@options.as_json
def verify(access: Access, backup_id: str, as_json: bool) -> int:
    """Read a whole backup and say whether it is what was written.

    Without --identity every object is hashed; with it every row is also opened and counted, and tables that a
    damage hits are named.
    """
    from . import verifying

    with chosen(access, backup_id) as backup:
        verdict = verifying.verify(backup)
    told = (backup.manifest.backup_id, verdict)
    _show(as_json, verifying.described(*told), verifying.in_words(*told))
    return int(not verdict.good)


@commands.command(
    examples="""
tenant-backup export file:///mnt/backups/acme latest --identity key.txt --trust ed25519:5a1f…
tenant-backup export … --identity key.txt --trust ed25519:5a1f… --format zip -o /tmp
"""
)
@options.access(trust_store=True)
@_BACKUP_ID
@click.option(
    "--format",
    "form",
    type=click.Choice(["sql", "zip", "directory"]),
    default="sql",
    show_default=True,
    help="sql: one file for psql or mariadb. zip, directory: that file, those of volumes, metadata.json and"
    " SHA256SUMS.",
)
@click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path), help="File to write, or a folder to write into."
)
@click.option(
    "--owners",
    is_flag=True,
    help="Keep owners and grants (MariaDB: definers); they must exist where it is loaded.",
)
@options.as_json
def export(access: Access, backup_id: str, as_json: bool, **how: Any) -> None:
    """Write a backup as SQL that plain psql or mariadb loads, and its files.

    It is named after the tenant and the moment its rows are from: acme_2024-01-15_14-30-25.sql. It
    appears under that name only when it is complete, and nothing is overwritten.
    """
    from . import exporting

    with chosen(access, backup_id) as backup:
        done = exporting.export(backup, **how)
    _show(as_json, done, done["path"])


@commands.command(
    examples="""
tenant-backup restore file:///mnt/backups/acme latest --identity key.txt --trust ed25519:5a1f… \\
    --host 127.0.0.1 --user postgres --password-file password --database acme_again
tenant-backup restore file:///mnt/backups/acme latest --identity key.txt --trust ed25519:5a1f… --files out
"""
)
@options.access(trust_store=True)
@_BACKUP_ID
@click.option(
    "--files",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files, empty or new: each volume gets a folder of its name in it.",
)
@click.option(
    "--host",
    help="Server to restore to; with a slash, its Unix socket (PostgreSQL: the folder).",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5432, of MariaDB 3306.")
@server_login
@click.option("--database", help="Name of the new database; it must not exist.")
@click.option(
    "--owner",
    help="Who owns it if the role that owned it is not there; default: --user. MariaDB: the account that gets"
    " all rights on it and makes its views, routines, triggers and events; an ordinary one.",
)
@click.option("--owner-password-file", type=options.FILE, help="File with its password; MariaDB only.")
@click.option("--connections", type=click.IntRange(2, 32), default=4, show_default=True)
@options.as_json
def restore(access: Access, backup_id: str, files: Path | None, as_json: bool, **where: Any) -> None:
    """Restore a backup into a new database, its files into a folder, or one of them.

    --user has to be able to create databases and roles. What the tenant wrote is loaded as a temporary login
    that may do nothing else. The database is there when every table was counted: until then it has another
    name, or with MariaDB nobody else has rights on it. Files are the ones of whoever restores them; run as
    root, they get their owners back.
    """
    from . import restoring

    if where["database"] is None and files is None:
        raise click.UsageError("say with --database, --files or both where to restore to")
    with chosen(access, backup_id) as backup:
        target = restoring.Target(*_new_database(backup, **where)) if where["database"] else None
        done = restoring.restore(backup, target, files)
    _show(as_json, done, restoring.in_words(done))


def _new_database(backup: Chosen, database: str, sign_in: SignIn, **where: Any) -> tuple[Server, str, Login]:
    """Return the server, the name and the owner of a database to be created. Raises Failure."""
    engine = backup.require_engine()
    if where["host"] is None:
        raise click.UsageError("--host is needed: the server to restore to")
    server = sign_in.server(engine, where["host"], where["port"] or PORTS[engine], where["connections"])
    return server, database, owner_of(server, where["owner"], where["owner_password_file"])


@commands.command(
    examples="""
tenant-backup backup --config tenant.yaml --store-url file:///mnt/backups/acme --user acme
tenant-backup backup --config tenant.yaml --store-url file:///mnt/backups/acme --files uploads=/srv/uploads
"""
)
@options.access_by_option()
@click.option("--config", type=options.FILE, required=True, help="YAML file with the Tenant object.")
@click.option("--keys", "keys_file", type=options.FILE, help="The tenant's keys; default: beside --config.")
@server_login
@click.option(
    "--files",
    "folders",
    metavar="NAME=FOLDER",
    multiple=True,
    help="Where the files of that name in spec.files are; for each of them.",
)
@click.option("--full", is_flag=True, help="Refer to nothing of earlier backups.")
@options.as_json
def backup(access: Access, sign_in: SignIn, config: Path, as_json: bool, **how: Any) -> int:
    """Back up a tenant's database and files without a cluster.

    Without --files, a tenant's files are left out.

    The first backup makes the tenant's keys, in a file that only you can read. The exit code is 1 also when
    the backup was committed and then read back differently.
    """
    from . import backing_up, tenant_file

    keys_file = how["keys_file"] or config.with_name(f"{config.stem}.keys.yaml")
    mode: Literal["Full", "Incremental"] = "Full" if how["full"] else "Incremental"
    tenant = tenant_file.read(config)
    wish = backing_up.Wish(tenant, keys_file, mode, backing_up.folders(tenant, how["folders"]))
    with options.opened(access) as opened:
        facts = backing_up.back_up(opened, wish, sign_in)
    _show(as_json, facts, backing_up.in_words(facts))
    return int(facts["health"] == "Corrupt")


@commands.command(
    "recovery-sheet",
    examples="""
tenant-backup recovery-sheet 's3://backups/prod/acme?endpoint=https://s3.example.com' --from-cluster shop/acme
tenant-backup recovery-sheet file:///mnt/backups/acme --trust ed25519:5a1f… > acme-recovery.md
""",
)
@options.access(identity=False)
@click.option(
    "--from-cluster", metavar="NAMESPACE/NAME", help="Take the key from this Tenant's status, by kubectl."
)
def recovery_sheet(access: Access, from_cluster: str | None) -> None:
    """Print what to keep for the day when everything else is lost (Markdown).

    The key comes from --trust or from the cluster, and has to be the one that signed the newest backup.
    """
    from . import sheet

    if from_cluster is not None:
        namespace, _, name = from_cluster.partition("/")
        if not name or access.trust is not None:
            raise click.UsageError("--from-cluster takes NAMESPACE/NAME, and goes without --trust")
        access = replace(access, trust=sheet.InCluster(namespace, name).signing_key())
    with chosen(access, LATEST) as newest:
        click.echo(sheet.sheet(access.where.url, newest.trust, newest.manifest), nl=False)


@commands.command(
    "recover-keys",
    examples="""
tenant-backup recover-keys file:///mnt/backups/acme --identity key.txt --trust ed25519:5a1f… > keys.yaml
""",
)
@options.access(trust_store=True)
def recover_keys(access: Access) -> None:
    """Print the tenant's keys as the Secret that the operator had made (YAML). It is secret: redirect it.

    `kubectl create -f` brings it back into a cluster; `backup --keys` goes on without one.
    """
    from . import key_secret

    if access.identity_file is None:
        raise click.UsageError("--identity is needed: the keys in the store are encrypted for its owner")
    with chosen(access, LATEST) as newest:
        finder = KeyFinder(newest.manifest, newest.identity, small(newest.opened.store))
        keys, owner = finder.tenant_keys(), newest.manifest.tenant
    if key_secret.public(keys) != newest.trust:
        message = "the signing key in the store is not the one that signed the newest backup; it was replaced"
        raise Failure(Reason.SIGNATURE_INVALID, f"{message}, use a copy of the Secret")
    click.echo(key_secret.manifest(owner.namespace, owner.name, keys), nl=False)


@commands.command(
    examples="""
tenant-backup rewrap file:///mnt/backups/acme --identity old.txt --trust ed25519:5a1f… --add age1ql3z…
"""
)
@options.access(trust_store=True)
@click.option(
    "--add", "recipients", multiple=True, required=True, help="Public key (age1…); may be repeated."
)
@options.as_json
def rewrap(access: Access, recipients: tuple[str, ...], as_json: bool) -> int:
    """Let others read the backups that are there.

    Adds keys for the new recipients; rewrites nothing and takes no right away. New backups are readable for
    them only when spec.encryption.recipients of the Tenant names them too.
    """
    from . import rewrapping

    if access.identity_file is None:
        raise click.UsageError("--identity is needed: one that can read the backups now")
    with chosen(access, LATEST) as newest:
        done = rewrapping.rewrap(newest, recipients)
    _show(as_json, rewrapping.described(done), rewrapping.in_words(done))
    return int(bool(done.skipped))


@commands.command(
    examples="""
tenant-backup collect file:///mnt/backups/acme
tenant-backup collect file:///mnt/backups/acme --delete
"""
)
@options.access(trust=False, identity=False)
@click.option("--delete", is_flag=True, help="Do it; without this it is only shown.")
@options.as_json
def collect(access: Access, delete: bool, as_json: bool) -> None:
    """Delete what no backup needs any more.

    Takes two calls: the first names what is unused, and one that comes at least 25 hours later deletes it. So
    it is safe while backups run, here or elsewhere.
    """
    from . import collecting

    with options.opened(access) as opened:
        done = collecting.collect(opened.store, delete=delete)
    _show(as_json, collecting.described(done), collecting.in_words(done, delete=delete))


def _show(as_json: bool, document: dict[str, Any], text: str) -> None:
    if as_json:
        console.emit(document)
    else:
        click.echo(text)
