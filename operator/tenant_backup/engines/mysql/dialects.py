"""What MariaDB and MySQL say differently, one value for each: nothing else asks which of them a server is.

MySQL has no comments on databases, no roles without a host, dynamic privileges, and other names for some
settings; what both say alike stands where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import passwords

# ALL PRIVILEGES of a database, and the right to pass them on: to the tenant's account and a temporary one.
_ALL = (
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "REFERENCES",
    "INDEX",
    "ALTER",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
    "EXECUTE",
    "CREATE VIEW",
    "SHOW VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "TRIGGER",
    "GRANT OPTION",
)
# What an ordinary account may have on the whole server without reaching beyond its own databases.
_HARMLESS = frozenset({"USAGE", "PROCESS", "RELOAD", "SHOW DATABASES", "REPLICATION CLIENT"})


@dataclass(frozen=True)
class Dialect:
    """How one family of servers is spoken with. Queries have {database}, a literal, where they need one."""

    engine: str  # as spec.database.engine says it
    oldest: tuple[int, int]
    always: dict[str, str]  # settings of every session
    loading: dict[str, str]  # likewise where rows are loaded

    properties: str  # of a database: character set, collation, comment, whether it encrypts new tables
    far_keys: str  # tables of other databases whose foreign keys refer to this one
    wants_keys: str  # whether the session cannot make a table without a primary key as it is
    members: str  # role, its host, user, host
    everybodys: str  # the roles of all accounts, with their hosts if they have any
    existing: str  # accounts that are no roles
    lockable: str  # accounts that may be locked out: not locked already, and no administrators

    literal_grants: str  # whether _ and % stand for themselves in GRANT
    all_rights: tuple[str, ...]  # on a database
    harmless: frozenset[str]  # on the server
    sees_routines: tuple[str, ...]  # any one of them
    # On the server: to see and end sessions, to see code and create it again for the definer it had.
    exchanges: tuple[str, ...]
    grants_mode: str  # sql_mode in which GRANT creates nobody
    parked: str  # the status of an event that does not run, and says that it did

    identified: Callable[[str], str]  # the clause of CREATE USER for a password
    shows_routine: Callable[[tuple[int, int], str], str]  # the right to see a routine's text, and on what
    tells_passwords: bool  # over TLS its accounts' plugin sends the password itself
    has_comments: bool  # of databases
    notes_broken_views: bool  # and shows no columns of one whose tables have left, and come back
    client: str  # its client program
    executed: str  # statements that execute {text}, a variable
    executes_code: bool  # also if that creates a routine, a trigger or an event


def _shown_by_mariadb(version: tuple[int, int], database: str) -> str:
    return f"SHOW CREATE ROUTINE ON {database}.*" if version >= (11, 3) else "SELECT ON `mysql`.`proc`"


def _shown_by_mysql(_version: tuple[int, int], _database: str) -> str:
    return "SHOW_ROUTINE ON *.*"


MARIADB = Dialect(
    engine="MariaDB",
    oldest=(10, 11),
    always={
        "max_statement_time": "0",
        "idle_transaction_timeout": "0",
        "idle_readonly_transaction_timeout": "0",
    },
    loading={"check_constraint_checks": "0", "system_versioning_insert_history": "1"},
    properties="""
SELECT default_character_set_name, default_collation_name, schema_comment, 'NO'
FROM information_schema.SCHEMATA WHERE schema_name = {database}
""",
    # Of InnoDB, which alone has them; the names are those of files.
    far_keys="""
SELECT for_name FROM information_schema.INNODB_SYS_FOREIGN
WHERE substring_index(ref_name, '/', 1) = {file} AND substring_index(for_name, '/', 1) <> {file} ORDER BY 1
""",
    wants_keys="SELECT 0",
    members="SELECT role, '', user, host FROM mysql.roles_mapping",
    everybodys="SELECT 'PUBLIC'",
    existing="SELECT user, host FROM mysql.user WHERE is_role = 'N' ORDER BY user, host",
    lockable="""
SELECT u.user, u.host FROM mysql.user u JOIN mysql.global_priv g ON g.user = u.user AND g.host = u.host
WHERE u.is_role = 'N' AND u.create_user_priv = 'N'
AND coalesce(json_value(g.priv, '$.account_locked'), '0') IN ('0', 'false')
""",
    literal_grants="SELECT 0",
    all_rights=(*_ALL[:-1], "DELETE HISTORY", _ALL[-1]),
    harmless=_HARMLESS | {"BINLOG MONITOR", "CONNECTION ADMIN", "GRANT OPTION"},  # the last of what it has
    sees_routines=("EXECUTE", "ALTER ROUTINE", "SHOW CREATE ROUTINE"),
    exchanges=("CREATE USER", "PROCESS", "CONNECTION ADMIN", "SET USER"),
    grants_mode="NO_AUTO_CREATE_USER",
    parked="DISABLE ON SLAVE",
    identified=passwords.native,
    shows_routine=_shown_by_mariadb,
    tells_passwords=False,
    has_comments=True,
    notes_broken_views=False,
    client="mariadb",
    executed="EXECUTE IMMEDIATE {text};",
    executes_code=True,
)

MYSQL = Dialect(
    engine="MySQL",
    oldest=(8, 4),
    always={
        "max_execution_time": "0",
        "information_schema_stats_expiry": "0",
        # A primary key that nobody asked for is a column like others, and comes back as one.
        "show_gipk_in_create_table_and_information_schema": "1",
    },
    # Tables come back as they are, whatever new ones would have to be like.
    loading={"explicit_defaults_for_timestamp": "1", "restrict_fk_on_non_standard_key": "0"},
    properties="""
SELECT default_character_set_name, default_collation_name, NULL, default_encryption
FROM information_schema.SCHEMATA WHERE schema_name = {database}
""",
    far_keys="""
SELECT concat(constraint_schema, '.', table_name) FROM information_schema.REFERENTIAL_CONSTRAINTS
WHERE unique_constraint_schema = {database} AND constraint_schema <> {database} ORDER BY 1
""",
    wants_keys="SELECT @@sql_generate_invisible_primary_key OR @@sql_require_primary_key",
    members="SELECT from_user, from_host, to_user, to_host FROM mysql.role_edges",
    everybodys="SELECT @@mandatory_roles",
    existing="SELECT user, host FROM mysql.user ORDER BY user, host",
    lockable="SELECT user, host FROM mysql.user WHERE account_locked = 'N' AND create_user_priv = 'N'",
    literal_grants="SELECT @@partial_revokes",
    all_rights=_ALL,
    harmless=_HARMLESS | {"CONNECTION_ADMIN", "SHOW_ROUTINE", "GRANT OPTION"},
    sees_routines=("EXECUTE", "ALTER ROUTINE", "SHOW_ROUTINE"),
    exchanges=(
        "CREATE USER",
        "PROCESS",
        "CONNECTION_ADMIN",
        "SET_ANY_DEFINER",
        "ALLOW_NONEXISTENT_DEFINER",
        "SHOW_ROUTINE",
    ),
    grants_mode="",
    parked="DISABLE ON REPLICA",
    identified=passwords.caching_sha2,
    shows_routine=_shown_by_mysql,
    tells_passwords=True,
    has_comments=False,
    notes_broken_views=True,
    client="mysql",
    executed="PREPARE tenant_backup FROM {text};\nEXECUTE tenant_backup;\nDEALLOCATE PREPARE tenant_backup;",
    executes_code=False,
)

OF_ENGINE = {dialect.engine: dialect for dialect in (MARIADB, MYSQL)}
