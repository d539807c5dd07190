"""What a database contains, read from its system catalogues: tables, columns, sequences, properties.

Every query runs with an empty search_path and names pg_catalog where a tenant could have put a namesake.
"""

from __future__ import annotations

import graphlib
from dataclasses import dataclass
from typing import Any

from tenant_backup.engines.selection import Choice

from .endpoint import Connection
from .names import quoted

# An extension may have tables and sequences for the tenant's own settings: {extension, oid, condition of the
# rows that are the tenant's}. Without an administrator only those of some extensions can be filled again.
_CONFIGURATION = """
SELECT e.extname, k.oid, coalesce(e.extcondition[k.place], '') AS condition
FROM pg_extension e CROSS JOIN unnest(e.extconfig) WITH ORDINALITY AS k (oid, place)
WHERE {} coalesce((SELECT NOT v.superuser FROM pg_available_extension_versions v
                   WHERE v.name = e.extname AND v.version = e.extversion), false)
"""
_FILLABLE = _CONFIGURATION.format("")

_OWN = f"""
NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
OR EXISTS (SELECT FROM ({_FILLABLE}) x WHERE x.oid = c.oid)
"""  # noqa: S608 - our own text

_TABLES = f"""
SELECT c.oid, n.nspname, c.relname, c.relkind::text, r.rolname,
       coalesce(am.amname = 'heap', false) AND x.oid IS NULL,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       row_security_active(c.oid), coalesce(x.extname, ''), coalesce(x.condition, ''),
       ARRAY(SELECT inhparent FROM pg_inherits WHERE inhrelid = c.oid ORDER BY inhseqno),
       coalesce(a.columns, '{{}}'), coalesce(a.generated, '{{}}'),
       ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (number,
       place) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE i.indrelid = c.oid
       AND i.indisprimary ORDER BY k.place),
       coalesce(a.required, '{{}}'), coalesce(a.filled, '{{}}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
     LEFT JOIN pg_am am ON am.oid = c.relam LEFT JOIN ({_FILLABLE}) x ON x.oid = c.oid
     CROSS JOIN LATERAL (
       SELECT array_agg(attname::text ORDER BY attnum) FILTER (WHERE attgenerated = '') AS columns,
              array_agg(attname::text ORDER BY attnum) FILTER (WHERE attgenerated <> '') AS generated,
              array_agg(attname::text) FILTER (WHERE attnotnull OR typnotnull) AS required,
              array_agg(attname::text) FILTER (WHERE atthasdef OR attidentity <> '' OR typdefault IS NOT NULL)
                AS filled
       FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
       WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) a
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.oid >= 16384
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND ({_OWN})
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""  # noqa: S608 - our own text

_SIZES = """
SELECT oid, pg_relation_size(oid)::int8 / current_setting('block_size')::int8, pg_table_size(oid)
FROM pg_class WHERE oid = ANY(%s) AND relkind = 'r'
"""

_SEQUENCES = f"""
SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND c.oid >= 16384
  AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) AND ({_OWN})
ORDER BY 1, 2
"""  # noqa: S608 - our own text

# What a standby does not get. A sequence goes with the table that owns it.
_UNLOGGED = """
SELECT coalesce(min(d.refobjid), c.oid), n.nspname || '.' || c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
  AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
WHERE pg_is_in_recovery() AND c.relpersistence = 'u' AND c.relkind IN ('r', 'S')
GROUP BY c.oid, n.nspname, c.relname ORDER BY 2
"""

_VIEW_EDGES = """
SELECT DISTINCT w.ev_class, d.refobjid
FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
JOIN pg_class c ON c.oid = d.refobjid
WHERE d.refclassid = 'pg_class'::regclass AND c.relkind IN ('v', 'm') AND d.refobjid <> w.ev_class
"""

_POPULATED = """
SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND NOT EXISTS (
  SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.oid
"""

_FOREIGN_KEYS = """
SELECT k.conname, k.conrelid, k.confrelid, pg_get_constraintdef(k.oid)
FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY k.oid
"""

_POLICIES = """
SELECT n.nspname, c.relname, p.polname, p.polpermissive, ARRAY(
  SELECT r.rolname::text FROM pg_roles r WHERE r.oid = ANY(p.polroles) ORDER BY 1)
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT 0 = ANY(p.polroles) ORDER BY 1, 2, 3
"""

_NOT_VALID = """
SELECT n.nspname || '.' || c.relname || '.' || k.conname
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT k.convalidated AND n.nspname !~ '^pg_' ORDER BY 1
"""

_UNFILLABLE = f"""
SELECT x.extname, n.nspname, c.relname, x.condition
FROM ({_CONFIGURATION.format("NOT")}) x JOIN pg_class c ON c.oid = x.oid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')
"""  # noqa: S608 - our own text


@dataclass(frozen=True)
class Table:
    """One table. `columns` are those a COPY can carry: neither dropped nor generated."""

    oid: int
    schema: str
    name: str
    kind: str  # r: holds rows; p: partitioned, holds none itself
    owner: str
    heap: bool
    readable: bool
    rows_hidden: bool  # row-level security applies to us
    extension: str  # whose table it is, with rows of the tenant's; empty: the tenant's own
    condition: str  # SQL from WHERE on: which of an extension's rows are the tenant's
    parents: tuple[int, ...]
    columns: tuple[str, ...]
    generated: tuple[str, ...]
    primary_key: tuple[str, ...]
    required: frozenset[str] = frozenset()
    filled: frozenset[str] = frozenset()

    @property
    def full_name(self) -> str:
        """schema.table, unquoted: how job descriptions and manifests name it."""
        return f"{self.schema}.{self.name}"

    @property
    def holds_rows(self) -> bool:
        """Whether it has rows itself; those of a partitioned table are in the tables below it."""
        return self.kind == "r"

    @property
    def sql(self) -> str:
        """The quoted, qualified name."""
        return quoted(self.schema, self.name)


@dataclass(frozen=True)
class Size:
    """How large a table is: blocks of its heap, and bytes with its out-of-line values."""

    blocks: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key as it was declared (not the copies its partitions inherit)."""

    name: str
    table: int
    references: int
    definition: str


def select(choice: Choice[Table], where: str) -> str:
    """The query that reads these rows; a value that is excluded is not even selected."""
    columns = ", ".join(quoted(name) for name in choice.columns)
    own = f" {choice.table.condition}" if choice.table.condition else where
    return f"SELECT {columns} FROM ONLY {choice.table.sql}{own}"  # noqa: S608 - quoted names


def tables(connection: Connection) -> list[Table]:
    """List the tables with rows of the tenant's, in a stable order: all but an extension's own."""
    return [
        Table(*row[:10], *(tuple(values) for values in row[10:14]), *(frozenset(names) for names in row[14:]))
        for row in connection.execute(_TABLES).fetchall()
    ]


def sizes(connection: Connection, of: list[Table]) -> dict[int, Size]:
    """Measure tables that are already locked: measuring takes a lock too, and would wait without a limit."""
    found = connection.execute(_SIZES, ([table.oid for table in of],)).fetchall()
    return {oid: Size(blocks, total) for oid, blocks, total in found}


def block_size(connection: Connection) -> int:
    """Return the server's block size in bytes."""
    return int(scalar(connection, "SELECT current_setting('block_size')"))


def unreadable_sequences(connection: Connection) -> list[tuple[str, str]]:
    """List the sequences whose value we may not read, as (schema, name)."""
    found = connection.execute(_SEQUENCES).fetchall()
    return [(schema, name) for schema, name, readable in found if not readable]


def sequences(connection: Connection, batch: int = 200) -> list[dict[str, Any]]:
    """Read every sequence's value; called after the snapshot, so that no row is ahead of its sequence."""
    names = [(schema, name) for schema, name, _ in connection.execute(_SEQUENCES).fetchall()]
    values: list[dict[str, Any]] = []
    for start in range(0, len(names), batch):
        part = names[start : start + batch]
        query = " UNION ALL ".join(
            f"SELECT {place}, last_value, is_called FROM {quoted(*name)}"  # noqa: S608 - quoted names
            for place, name in enumerate(part)
        )
        for place, last, called in connection.execute(query).fetchall():
            schema, name = part[place]
            values.append({"schema": schema, "name": name, "last": last, "called": called})
    return values


def not_on_standby(connection: Connection) -> list[tuple[int, str]]:
    """Name what only the primary has the contents of, each after the OID of its table; none on a primary."""
    return [(oid, name) for oid, name in connection.execute(_UNLOGGED).fetchall()]


def populated_views(connection: Connection) -> list[list[str]]:
    """List materialized views that hold rows as [schema, name], those that others read from first."""
    edges: dict[int, set[int]] = {}
    for view, source in connection.execute(_VIEW_EDGES).fetchall():
        edges.setdefault(view, set()).add(source)
    order = {oid: place for place, oid in enumerate(graphlib.TopologicalSorter(edges).static_order())}
    found = connection.execute(_POPULATED).fetchall()
    return [[schema, name] for oid, schema, name in sorted(found, key=lambda row: order.get(row[0], -1))]


def foreign_keys(connection: Connection) -> list[ForeignKey]:
    """List the foreign keys of the database."""
    return [ForeignKey(*row) for row in connection.execute(_FOREIGN_KEYS).fetchall()]


def policies(connection: Connection) -> list[dict[str, Any]]:
    """List the policies for certain roles: {schema, table, name, permissive, roles}."""
    keys = ("schema", "table", "name", "permissive", "roles")
    return [dict(zip(keys, row, strict=True)) for row in connection.execute(_POLICIES).fetchall()]


def constraints_not_valid(connection: Connection) -> list[str]:
    """Name the constraints that were never validated, as schema.table.constraint."""
    return [row[0] for row in connection.execute(_NOT_VALID).fetchall()]


def extension_rows(connection: Connection) -> list[str]:
    """Name tables of extensions with rows of the tenant's that only an administrator could bring back."""
    found = []
    for extension, schema, name, condition in connection.execute(_UNFILLABLE).fetchall():
        query = f"SELECT EXISTS (SELECT FROM ONLY {quoted(schema, name)} {condition})"  # noqa: S608 - quoted
        if scalar(connection, query):
            found.append(f"{schema}.{name} of extension {extension}")
    return found


def large_objects(connection: Connection) -> int:
    """Count large objects."""
    return int(scalar(connection, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"))


def publications_of_everything(connection: Connection) -> list[str]:
    """Name the publications only an administrator may create: of all tables or of whole schemas."""
    query = """SELECT pubname FROM pg_publication p WHERE puballtables
               OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid) ORDER BY 1"""
    return [row[0] for row in connection.execute(query).fetchall()]


def untrusted_functions(connection: Connection) -> list[int]:
    """List the OIDs of functions only an administrator may create: native code, or declared leakproof."""
    query = """SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
               WHERE p.oid >= 16384 AND p.prokind <> 'a' AND (NOT l.lanpltrusted OR p.proleakproof)
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                               AND d.objid = p.oid AND d.deptype = 'e') ORDER BY 1"""
    return [row[0] for row in connection.execute(query).fetchall()]


def scalar(connection: Connection, query: str, parameters: tuple[Any, ...] = ()) -> Any:
    """Return the first column of the first row, None when there is no row."""
    row = connection.execute(query, parameters or None).fetchone()
    return row[0] if row else None
