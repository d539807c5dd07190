"""Real servers as pods: PostgreSQL, MariaDB, MySQL, an S3 store, a webhook receiver; small enough for a laptop."""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .kubectl import Kubectl

HR_SQL = Path(__file__).with_name("hr.sql")
HR_MYSQL = Path(__file__).with_name("hr_mysql.sql")
RECEIVER_PY = Path(__file__).with_name("receiver.py")
_RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# A client program inside the pod, which asks nobody for a password.
_AS_ROOT = ["--no-defaults", "-S", "/tmp/mysqld.sock", "-u", "root"]
_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def namespace(name: str) -> dict[str, Any]:
    """A namespace in which only restricted pods run."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(name: str, **values: str) -> dict[str, Any]:
    """A Secret from plain text values."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


@dataclass(frozen=True)
class _Server:
    """A database server in a pod."""

    kubectl: Kubectl
    name: str
    password: str

    @property
    def host(self) -> str:
        """The address other pods use."""
        return f"{self.name}.{self.kubectl.namespace}.svc"


@dataclass(frozen=True)
class Postgres(_Server):
    """A PostgreSQL server in a pod; statements run with psql inside it."""

    def sql(self, statements: str, database: str = "postgres", **variables: str) -> str:
        """Run statements as the administrator; return unaligned rows without headings."""
        options = [f"--set={key}={value}" for key, value in variables.items()]
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]
        inside = [f"deploy/{self.name}", "--", *command, *options, "-f", "-"]
        return self.kubectl("exec", "-i", *inside, stdin=statements).strip()

    def create_tenant(self, database: str, password: str, scale: int = 1) -> None:
        """Create a role and a database of the same name, filled with an HR product's tables."""
        self.create_database(database, password)
        self.sql(f'SET ROLE "{database}";\n{HR_SQL.read_text()}', database, tenant=database, scale=str(scale))
        self.sql("ANALYZE", database)

    def create_database(self, database: str, password: str) -> None:
        """Create a role and an empty database of the same name."""
        self.sql(f"CREATE ROLE \"{database}\" LOGIN PASSWORD '{password}'")
        self.sql(f'CREATE DATABASE "{database}" OWNER "{database}"')
        self.sql(f'REVOKE CONNECT ON DATABASE "{database}" FROM PUBLIC')

    def fingerprint(self, database: str, *, without: dict[str, list[str]] | None = None) -> dict[str, str]:
        """Return {table: "rows hash"}: counted and hashed by the server, whatever the order of rows.

        `without` names columns left out of the hash, by table.
        """
        tables = self.sql(_TABLES, database).splitlines()
        parts = [_table_hash(table, (without or {}).get(table, [])) for table in tables]
        rows = self.sql("\nUNION ALL ".join(parts) + " ORDER BY 1", database).splitlines()
        return dict(row.split("|", 1) for row in rows)

    def definitions(self, database: str) -> str:
        """Return all definitions as pg_dump writes them, the same for databases that are the same."""
        command = ["pg_dump", "-U", "postgres", "--schema-only", database]
        text = self.kubectl("exec", f"deploy/{self.name}", "--", *command)
        return "\n".join(line for line in text.splitlines() if not _OF_THIS_DUMP.match(line))


_OF_THIS_DUMP = re.compile(r"\\(un)?restrict ")
_TABLES = """SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_' ORDER BY 1"""


def _table_hash(table: str, without: list[str]) -> str:
    removed = "".join(f" - '{column}'" for column in without)
    row = f"(to_jsonb(t){removed})::text" if without else "t::text"
    total = f"coalesce(sum(hashtextextended({row}, 0)::numeric), 0)"
    return f"SELECT '{table}', count(*) || ' ' || {total} FROM {table} t"


def postgres(kubectl: Kubectl, name: str, image: str, *arguments: str) -> Postgres:
    """Start a PostgreSQL server and wait until it answers; its data goes with the pod."""
    server = Postgres(kubectl, name, _password_of(kubectl, name))
    kubectl.apply(
        secret(f"{name}-admin", username="postgres", password=server.password),
        _service(name, 5432),
        _deployment(
            name,
            image,
            5432,
            list(arguments),
            env=[_from_secret("POSTGRES_PASSWORD", f"{name}-admin", "password")],
            mount="/var/lib/postgresql/data",
            ready={"exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1"]}},
        ),
    )
    kubectl("rollout", "status", f"deploy/{name}", "--timeout=120s")
    return server


@dataclass(frozen=True)
class MariaDB(_Server):
    """A MariaDB server in a pod; statements run with mariadb inside it."""

    engine: ClassVar[str] = "MariaDB"
    client: ClassVar[str] = "mariadb"
    dumper: ClassVar[str] = "mariadb-dump"

    def sql(self, statements: str, database: str = "") -> str:
        """Run statements as the administrator; return rows separated by tabs, without headings."""
        command = [self.client, *_AS_ROOT, "-N", "-B"]
        inside = [f"deploy/{self.name}", "--", *command, *([database] if database else [])]
        return self.kubectl("exec", "-i", *inside, stdin=statements).strip()

    def as_tenant(self, database: str, password: str, statements: str) -> None:
        """Run statements as the account that has the database's name."""
        client = [self.client, "--no-defaults", "--default-character-set=utf8mb4", "-h", "127.0.0.1"]
        inside = ["env", f"MYSQL_PWD={password}", *client, "-u", database]
        self.kubectl("exec", "-i", f"deploy/{self.name}", "--", *inside, database, stdin=statements)

    def create_database(self, database: str, password: str, rights: str = "ALL") -> None:
        """Create an empty database and an account of the same name with these rights on it."""
        self.sql(
            f"CREATE DATABASE {database} CHARACTER SET utf8mb4;"
            f" CREATE USER {database}@'%' IDENTIFIED BY '{password}';"
            f" GRANT {rights} ON {database}.* TO {database}@'%'"
        )

    def create_tenant(self, database: str, password: str) -> None:
        """Create a database and an account of the same name, filled with an HR product's tables."""
        self.create_database(database, password)
        self.as_tenant(database, password, HR_MYSQL.read_text())

    def hashes(self, database: str, *, without: dict[str, list[str]] | None = None) -> dict[str, str]:
        """Return {table: "rows hash"}: counted and hashed by the server, whatever the order of rows.

        `without` names columns left out of the hash, by table.
        """
        columns: dict[str, list[str]] = {}
        for line in self.sql(_COLUMNS.format(database=database)).splitlines():
            table, column = line.split("\t")
            if column not in (without or {}).get(table, []):
                columns.setdefault(table, []).append(column)
        rows = self.sql("\nUNION ALL ".join(map(_row_hashes, columns, columns.values())), database)
        return dict(row.split("\t", 1) for row in rows.splitlines())

    def checksums(self, database: str) -> list[str]:
        """Each table's name and checksum, which sees every bit of a value."""
        names = self.sql(
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{database}'"
            " AND table_type = 'BASE TABLE' ORDER BY 1"
        ).split()
        sums = self.sql(f"CHECKSUM TABLE {', '.join(names)} EXTENDED", database).splitlines()
        return [line.partition(".")[2] for line in sums]

    def fingerprint(self, database: str) -> str:
        """Each table's checksum, and all definitions and triggers as the server's own program writes them."""
        options = ["--no-data", "--skip-comments", "--skip-dump-date", "--routines", "--triggers", "--events"]
        command = [self.dumper, *_AS_ROOT, *options, database]
        text = self.kubectl("exec", f"deploy/{self.name}", "--", *command)
        return "\n".join([*self.checksums(database), text])


_COLUMNS = """SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = '{database}' AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position"""


def _row_hashes(table: str, columns: list[str]) -> str:
    values = ", ".join(f"ifnull(hex(concat(`{column}`)), '-')" for column in columns)
    hashed = f"cast(conv(left(sha2(concat_ws(',', {values}), 256), 15), 16, 10) AS unsigned)"
    return f"SELECT '{table}', concat(count(*), ' ', coalesce(sum({hashed}), 0)) FROM `{table}`"


@dataclass(frozen=True)
class MySQL(MariaDB):
    """A MySQL server in a pod; statements run with mysql inside it."""

    engine: ClassVar[str] = "MySQL"
    client: ClassVar[str] = "mysql"
    dumper: ClassVar[str] = "mysqldump"

    def checksums(self, database: str) -> list[str]:
        """Of JSON, CHECKSUM TABLE sees what is beside it in memory."""
        return [f"{table} {hashed}" for table, hashed in self.hashes(database).items()]


def mariadb(kubectl: Kubectl, name: str, image: str) -> MariaDB:
    """Start a MariaDB server and wait until it answers; its data goes with the pod."""
    server = MariaDB(kubectl, name, _password_of(kubectl, name))
    _start(server, image, "MARIADB_PASSWORD", [])
    return server


def mysql(kubectl: Kubectl, name: str, image: str) -> MySQL:
    """Likewise a MySQL server, in which accounts may create triggers without being administrators."""
    server = MySQL(kubectl, name, _password_of(kubectl, name))
    small = ["--performance-schema=OFF", "--innodb-buffer-pool-size=64M", "--skip-log-bin"]
    _start(server, image, "MYSQL_PASSWORD", small)
    return server


def _start(server: MariaDB, image: str, password: str, arguments: list[str]) -> None:
    name, kubectl = server.name, server.kubectl
    answers = " ".join([server.client, *_AS_ROOT, "-e", "'SELECT 1'"])
    kubectl.apply(
        secret(f"{name}-admin", username="root", password=server.password),
        _service(name, 3306),
        _deployment(
            name,
            image,
            3306,
            arguments,
            env=[_from_secret(password, f"{name}-admin", "password")],
            mount="/var/lib/mysql",
            ready={"exec": {"command": ["sh", "-c", answers]}},
        ),
    )
    kubectl("rollout", "status", f"deploy/{name}", "--timeout=120s")


@dataclass(frozen=True)
class S3:
    """An S3 server (versitygw) in a pod; buckets are folders below /data."""

    kubectl: Kubectl
    name: str
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        """The address other pods use."""
        return f"http://{self.name}.{self.kubectl.namespace}.svc:7070"

    def store(self, name: str, bucket: str, prefix: str = "") -> list[dict[str, Any]]:
        """The Secret and the BackupStore that point here."""
        s3 = {"bucket": bucket, "endpoint": self.endpoint, "region": "us-east-1"}
        s3 |= {"prefix": prefix} if prefix else {}
        spec = {"s3": {**s3, "credentialsSecretRef": {"name": f"{name}-s3"}}}
        return [
            secret(f"{name}-s3", accessKeyId=self.access_key, secretAccessKey=self.secret_key),
            {
                "apiVersion": "tenantbackup.dev/v1alpha1",
                "kind": "BackupStore",
                "metadata": {"name": name},
                "spec": spec,
            },
        ]

    def shell(self, script: str) -> str:
        """Run a shell script beside the data: list, damage, delete objects behind everybody's back."""
        return self.kubectl("exec", f"deploy/{self.name}", "--", "sh", "-c", script)


def s3(kubectl: Kubectl, name: str, image: str, *buckets: str) -> S3:
    """Start an S3 server with these buckets and wait until it answers."""
    server = S3(kubectl, name, "lab", _password_of(kubectl, name, key="secretAccessKey"))
    folders = " ".join(f"/data/{bucket}" for bucket in buckets)
    deployment = _deployment(
        name,
        image,
        7070,
        [],
        env=[
            _from_secret("ROOT_ACCESS_KEY", f"{name}-admin", "accessKeyId"),
            _from_secret("ROOT_SECRET_KEY", f"{name}-admin", "secretAccessKey"),
        ],
        mount="/data",
        ready={"tcpSocket": {"port": 7070}},
        prepare=f"mkdir -p {folders}",
    )
    kubectl.apply(
        secret(f"{name}-admin", accessKeyId=server.access_key, secretAccessKey=server.secret_key),
        _service(name, 7070),
        deployment,
    )
    kubectl("rollout", "status", f"deploy/{name}", "--timeout=120s")
    return server


@dataclass(frozen=True)
class Receiver:
    """A webhook receiver in a pod."""

    kubectl: Kubectl
    name: str

    @property
    def secret(self) -> str:
        """The name of the Secret a BackupNotifier needs: where it is, and the key of its signatures."""
        return f"{self.name}-webhook"

    def told(self) -> list[dict[str, Any]]:
        """Return what was received, each notification once."""
        lines = self.kubectl("exec", f"deploy/{self.name}", "--", "cat", "/data/told")
        return [json.loads(line) for line in lines.splitlines()]


def receiver(kubectl: Kubectl, name: str, image: str) -> Receiver:
    """Start a webhook receiver (any image with Python will do) and wait until it answers."""
    made = Receiver(kubectl, name)
    key = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    url = f"http://{name}.{kubectl.namespace}.svc:8080/backups"
    deployment = _deployment(
        name,
        image,
        8080,
        ["-c", RECEIVER_PY.read_text()],
        command=["python3"],
        env=[_from_secret("WEBHOOK_SECRET", made.secret, "secret")],
        mount="/data",
        ready={"httpGet": {"path": "/", "port": 8080}},
    )
    kubectl.apply(secret(made.secret, url=url, secret=key), _service(name, 8080), deployment)
    kubectl("rollout", "status", f"deploy/{name}", "--timeout=120s")
    return made


def _password_of(kubectl: Kubectl, name: str, key: str = "password") -> str:
    """The password a running server already has, or a new one."""
    text = kubectl(
        "get",
        "secret",
        f"{name}-admin",
        "--ignore-not-found",
        "-o",
        f"go-template={{{{.data.{key}|base64decode}}}}",
    )
    return text.strip() or secrets.token_hex(16)


def _from_secret(variable: str, name: str, key: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _service(name: str, port: int) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _deployment(
    name: str,
    image: str,
    port: int,
    arguments: list[str],
    *,
    env: list[dict[str, Any]],
    mount: str,
    ready: dict[str, Any],
    command: list[str] | None = None,
    prepare: str | None = None,
) -> dict[str, Any]:
    container = {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": _RESTRICTED,
        "volumeMounts": [{"name": "data", "mountPath": mount}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    main = {
        **container,
        "name": name,
        **({"command": command} if command else {}),
        "args": arguments,
        "env": env,
        "ports": [{"containerPort": port}],
        # Asked until it is up, and not each second of its life.
        "startupProbe": {**ready, "periodSeconds": 1, "failureThreshold": 60},
    }
    first = [{**container, "name": "prepare", "command": ["sh", "-c", prepare]}] if prepare else []
    pod = {
        "securityContext": _RESTRICTED_POD,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "initContainers": first,
        "containers": [main],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
