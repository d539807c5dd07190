"""Schemas made by chance from a seed: the same seed is the same schema, and every statement of it is valid.

One schema holds a bit of everything that an ordinary role may create. What matters are the combinations: a
generated column of a domain in a partition, a deferred key to itself, a name with a quote in a statistics object.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.engines.kinds import KINDS, NAMES, Kind, quoted, text

_ROWS = 60  # of a table, at most


@dataclass
class Table:
    """What others can refer to."""

    name: str
    columns: dict[str, Kind] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    keyed: bool = False  # by `key` alone
    plain: bool = True  # neither partitioned nor inherited
    logged: bool = True
    primary: bool = False
    rows: int = 0


class Schema:
    """The statements of one schema; every name in it comes from the seed."""

    def __init__(self, seed: int, version: int) -> None:
        """Prepare; `version` is the server's major version."""
        self._double = self._fired = self._sequence = self._typed = ""
        self._chance, self._version = random.Random(seed), version
        self.name = f"s{seed} {self._chance.choice(NAMES)}"[:40]
        self._count = 0
        self._kinds = list(KINDS)
        self._tables: list[Table] = []

    def statements(self) -> Iterator[str]:
        """Yield them in order."""
        yield f"CREATE SCHEMA {quoted(self.name)}"
        yield f"SET search_path = {quoted(self.name)}, public"
        for make in (self._types, self._functions, self._sequences):
            yield from make()
        makers: list[Callable[[], Iterator[str]]] = [self._table, self._partitioned, self._heirs, self._odd]
        for _ in range(self._chance.randint(3, 6)):
            yield from self._chance.choices(makers, (5, 2, 1, 1))[0]()
        for table in list(self._tables):
            yield from self._around(table)
        for make in (self._references, self._views, self._rights, self._others):
            yield from make()

    # names and chances

    def _new(self) -> str:
        self._count += 1
        return f"{self._chance.choice(NAMES)}{self._count}"

    def _q(self, name: str) -> str:
        return quoted(self.name, name)

    def _maybe(self, share: float, sql: str) -> str:
        return sql if self._chance.random() < share else ""

    def _some(self, items: Sequence[str], most: int) -> list[str]:
        return self._chance.sample(list(items), self._chance.randint(1, min(most, len(items))))

    def _comment(self, what: str) -> Iterator[str]:
        if self._chance.random() < 0.3:
            yield f"COMMENT ON {what} IS {text(self._new() + chr(10) + 'second line')}"

    # types, functions, sequences

    def _types(self) -> Iterator[str]:
        enum, pair, domain, narrow, span = (self._q(self._new()) for _ in range(5))
        labels = [f"{name} {place}" for place, name in enumerate(self._some(NAMES, 4))]
        yield f"CREATE TYPE {enum} AS ENUM ({', '.join(map(text, labels))})"
        yield from self._comment(f"TYPE {enum}")
        yield f'CREATE TYPE {pair} AS (a int, {quoted(self._new())} text COLLATE "C", c {enum}[])'
        yield f"CREATE DOMAIN {domain} AS text DEFAULT {text(self._new())} CONSTRAINT {quoted(self._new())} CHECK (length(VALUE) < 60)"
        yield f"CREATE DOMAIN {narrow} AS {self._chance.choice(('int', 'numeric(9, 2)'))} NOT NULL CHECK (VALUE > -1000)"
        yield f"ALTER DOMAIN {narrow} ADD CONSTRAINT {quoted(self._new())} CHECK (VALUE < 900) NOT VALID"
        yield f"CREATE TYPE {span} AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = {self._q(self._new())})"
        yield from self._comment(f"DOMAIN {domain}")
        deeper, labelled = self._q(self._new()), self._q(self._new())
        yield f"CREATE DOMAIN {deeper} AS {domain}[] CHECK (cardinality(VALUE) < 9)"
        yield f"ALTER TYPE {enum} ADD VALUE {text(self._new())} BEFORE {text(labels[0])}"
        yield f"ALTER TYPE {pair} ADD ATTRIBUTE d {domain}"
        yield f"COMMENT ON COLUMN {pair}.d IS 'late'"
        yield f"CREATE TYPE {labelled} AS (id int, {quoted(self._new())} {enum})"
        yield f"CREATE CAST ({labelled} AS text) WITH INOUT AS ASSIGNMENT"
        self._typed = labelled
        self._kinds += [
            Kind(enum, f"(ARRAY[{', '.join(map(text, labels))}])[1 + i % {len(labels)}]::{enum}"),
            Kind(pair, f"ROW(i, 'x,\"(', NULL, 'd')::{pair}"),
            Kind(
                f"{pair}[]", f"ARRAY[ROW(i, E'\\\\', ARRAY[{text(labels[0])}]::{enum}[], NULL)::{pair}, NULL]"
            ),
            Kind(deeper, "ARRAY['d', NULL, 'e']"),
            Kind(domain, "'d' || i", key=True),
            Kind(narrow, "i"),
            Kind(span, f"{span}(i, i + 0.1)"),
            Kind(f"{enum}[]", f"ARRAY[{text(labels[-1])}, NULL]::{enum}[]"),
        ]

    def _functions(self) -> Iterator[str]:
        self._double, self._fired = self._q(self._new()), self._q(self._new())
        yield f"CREATE FUNCTION {self._double}(i bigint, VARIADIC r int[] DEFAULT '{{}}') RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql AS 'SELECT i * 2'"
        yield f"CREATE FUNCTION {self._fired}() RETURNS trigger LANGUAGE plpgsql SET work_mem = '5MB' AS $$ BEGIN RETURN NEW; END; -- it's \\ $$"
        yield f"CREATE AGGREGATE {self._q(self._new())}(bigint) (SFUNC = int8pl, STYPE = bigint, INITCOND = '0')"
        yield f"CREATE PROCEDURE {self._q(self._new())}(INOUT a int, b text DEFAULT {text(self._new())}) LANGUAGE sql BEGIN ATOMIC SELECT a; END"
        yield f"CREATE FUNCTION {self._q(self._new())}(OUT a int, OUT {quoted(self._new())} text) RETURNS SETOF record ROWS 7 COST 3 STRICT SECURITY DEFINER LANGUAGE sql AS $q$ SELECT 1, 'x'::text $q$"
        yield f"CREATE OPERATOR {quoted(self.name)}.@@@ (FUNCTION = int8pl, LEFTARG = bigint, RIGHTARG = bigint, COMMUTATOR = OPERATOR({quoted(self.name)}.@@@))"
        yield from self._comment(f"FUNCTION {self._fired}()")
        yield f"REVOKE ALL ON FUNCTION {self._double}(bigint, int[]) FROM PUBLIC"

    def _sequences(self) -> Iterator[str]:
        step = self._chance.choice((1, 7, -3))
        self._sequence = self._q(self._new())
        kind = self._chance.choice(("bigint", "int", "smallint"))
        yield f"CREATE {self._maybe(0.2, 'UNLOGGED')} SEQUENCE {self._sequence} AS {kind} INCREMENT {step} MINVALUE -900 MAXVALUE 9000 {self._maybe(0.5, 'CYCLE')} CACHE {self._chance.randint(1, 9)}"
        for _ in range(self._chance.randint(0, 3)):
            yield f"SELECT nextval({text(self._sequence)})"

    # tables

    def _column(self, table: Table) -> tuple[str, str]:
        name, kind = self._new(), self._chance.choice(self._kinds)
        table.columns[name] = kind
        details = [quoted(name), kind.sql]
        if kind.sql in {"text", "varchar(40)"}:
            details.append(self._maybe(0.2, 'COLLATE "C"'))
        if kind.sql == "int" and self._chance.random() < 0.3:
            details.append(f"DEFAULT nextval({text(self._sequence)})")
        elif kind.sql in {"text", "jsonb", "date"}:
            default = {"text": text(self._new()), "jsonb": "'{\"a\": [1]}'", "date": "CURRENT_DATE"}[kind.sql]
            details.append(self._maybe(0.4, f"DEFAULT {default}"))
        required = self._maybe(0.3, "NOT NULL")
        if required and self._version >= 18:
            required = self._maybe(0.5, f"CONSTRAINT {quoted(self._new())} ") + required
        return name, " ".join([*details, required])

    def _columns(self, table: Table, least: int) -> list[str]:
        written = [self._column(table)[1] for _ in range(self._chance.randint(least, 7))]
        computed = [name for name, kind in table.columns.items() if kind.sql == "int"]
        if computed and self._chance.random() < 0.5:
            stored = "STORED" if self._version < 18 else self._chance.choice(("STORED", "VIRTUAL"))
            made = f"{quoted(computed[0])} * 3 + 1"
            written.append(f"{quoted(self._new())} bigint GENERATED ALWAYS AS ({made}) {stored}")
        if self._chance.random() < 0.3:
            how = self._chance.choice(("ALWAYS", "BY DEFAULT"))
            written.append(
                f"{quoted(self._new())} bigint GENERATED {how} AS IDENTITY (START {self._chance.randint(1, 99)} INCREMENT 3)"
            )
        return written

    def _fill(self, table: Table, rows: int, *, only: str = "") -> Iterator[str]:
        """Insert rows; columns that may be are NULL now and then."""
        table.rows = rows
        names = ", ".join(map(quoted, table.columns))
        values = ", ".join(f"({kind.value})::{kind.sql}" for kind in table.columns.values())
        what = f"({names}) SELECT {values}" if names else "SELECT"
        if rows:
            yield f"INSERT INTO {only or self._q(table.name)} {what} FROM generate_series(1, {rows}) i"

    def _table(self) -> Iterator[str]:
        table = Table(self._new())
        columns = self._columns(table, 0)
        keys = [name for name, kind in table.columns.items() if kind.key and "GENERATED" not in name]
        if keys and self._chance.random() < 0.7:
            table.key, table.keyed = (keys[0],), True
            late = self._chance.choice(("", "", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"))
            table.keyed = not late
            which = self._chance.choice(("PRIMARY KEY", "UNIQUE NULLS NOT DISTINCT"))
            table.primary = which == "PRIMARY KEY" and not late
            columns.append(
                f"CONSTRAINT {quoted(self._new())} {which} ({quoted(keys[0])}) WITH (fillfactor = 80) {late}"
            )
        numbers = [name for name, kind in table.columns.items() if kind.sql in {"int", "bigint"}]
        if numbers and self._chance.random() < 0.5:
            columns.append(
                f"CONSTRAINT {quoted(self._new())} CHECK ({quoted(numbers[0])} > -1) {self._maybe(0.3, 'NO INHERIT')}"
            )
        kind = self._maybe(0.15, "UNLOGGED")
        table.logged = not kind
        options = self._maybe(0.3, "WITH (fillfactor = 77, autovacuum_enabled = false)")
        yield f"CREATE {kind} TABLE {self._q(table.name)} ({', '.join(columns)}) {options}"
        yield from self._fill(table, self._chance.randint(0, _ROWS))
        yield from self._altered(table)
        self._tables.append(table)

    def _altered(self, table: Table) -> Iterator[str]:
        """What a table looks like after years: columns dropped and added."""
        name = self._q(table.name)
        free = [column for column in table.columns if column not in table.key]
        if free and self._chance.random() < 0.3:
            gone = self._chance.choice(free)
            yield f"ALTER TABLE {name} DROP COLUMN {quoted(gone)} CASCADE"
            del table.columns[gone]
        if self._chance.random() < 0.3:
            added = self._new()
            yield f"ALTER TABLE {name} ADD COLUMN {quoted(added)} text NOT NULL DEFAULT {text(self._new())}"
            table.columns[added] = Kind("text", "'a' || i", key=True)
            yield from self._fill(table, 0)
        if self._chance.random() < 0.2:
            yield f"ALTER TABLE {name} ADD CONSTRAINT {quoted(self._new())} CHECK (false) NOT VALID"
            table.rows = 0

    def _partitioned(self) -> Iterator[str]:
        table = Table(self._new(), plain=False)
        columns = self._columns(table, 1)
        if self._version < 17:
            columns = [column for column in columns if "AS IDENTITY" not in column]
        split = self._new()
        how = self._chance.choice(("RANGE", "LIST", "HASH"))
        table.columns[split] = Kind("int", "i", key=True)
        key = self._maybe(0.5, f", PRIMARY KEY ({quoted(split)})")
        yield f"CREATE TABLE {self._q(table.name)} ({', '.join(columns)}, {quoted(split)} int{key}) PARTITION BY {how} ({quoted(split)})"
        parts = {
            "RANGE": ["FOR VALUES FROM (MINVALUE) TO (20)", "FOR VALUES FROM (20) TO (40)", "DEFAULT"],
            "LIST": ["FOR VALUES IN (1, 2, 3)", "FOR VALUES IN (4)", "DEFAULT"],
            "HASH": [f"FOR VALUES WITH (MODULUS 3, REMAINDER {rest})" for rest in range(3)],
        }[how]
        for number, part in enumerate(parts):
            below = self._q(self._new())
            if number == 1 and self._chance.random() < 0.4:
                yield f"CREATE TABLE {below} PARTITION OF {self._q(table.name)} {part} PARTITION BY HASH ({quoted(split)})"
                yield f"CREATE TABLE {self._q(self._new())} PARTITION OF {below} FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
            elif number == 2 and self._chance.random() < 0.4:
                # With its columns in another order: attached, not created.
                yield f"CREATE TABLE {below} (gone int, LIKE {self._q(table.name)} INCLUDING ALL)"
                yield f"ALTER TABLE {below} DROP COLUMN gone"
                yield from self._unlike(below, columns)
                yield f"ALTER TABLE {self._q(table.name)} ATTACH PARTITION {below} {part}"
            else:
                yield f"CREATE TABLE {below} PARTITION OF {self._q(table.name)} {part}"
        yield from self._fill(table, self._chance.randint(0, _ROWS))
        if key:
            table.key, table.keyed = (split,), True
        self._tables.append(table)

    def _unlike(self, below: str, columns: list[str]) -> Iterator[str]:
        """A table to be attached must not have identity columns."""
        for column in columns:
            if "AS IDENTITY" in column:
                yield f"ALTER TABLE {below} ALTER COLUMN {column.partition(' bigint GENERATED')[0]} DROP IDENTITY"

    def _heirs(self) -> Iterator[str]:
        table = Table(self._new(), plain=False)
        columns = [column for column in self._columns(table, 1) if "AS IDENTITY" not in column]
        yield f"CREATE TABLE {self._q(table.name)} ({', '.join(columns)})"
        yield from self._fill(table, self._chance.randint(0, 9))
        child = Table(self._new(), dict(table.columns), plain=False)
        more = self._column(child)[1]
        # Not those that may have a collation: it would have to be the same.
        free = [name for name, kind in table.columns.items() if kind.sql not in {"text", "varchar(40)"}]
        merged = "".join(f", {quoted(again)} {table.columns[again].sql}" for again in free[:1])
        yield f"CREATE TABLE {self._q(child.name)} ({more}{self._maybe(0.4, merged)}) INHERITS ({self._q(table.name)})"
        yield from self._fill(child, self._chance.randint(0, 9))
        self._tables += [table, child]

    def _odd(self) -> Iterator[str]:
        """Tables of a type, with keys that exclude, with two parents, with values out of line."""
        typed, booked, both, wide = (Table(self._new(), plain=False) for _ in range(4))
        yield f"CREATE TABLE {self._q(typed.name)} OF {self._typed} (id WITH OPTIONS DEFAULT 7 PRIMARY KEY)"
        yield f"INSERT INTO {self._q(typed.name)} (id) SELECT i FROM generate_series(1, 5) i"
        key = f"CONSTRAINT {quoted(self._new())} EXCLUDE USING gist (during WITH &&) WHERE (room > 0) DEFERRABLE"
        yield f"CREATE TABLE {self._q(booked.name)} (room int, span int4range, during int4range, {key})"
        span = Kind("int4range", "int4range(i, i + 1)")
        booked.columns = {"room": Kind("int", "i"), "span": span, "during": span}
        yield from self._fill(booked, 20)
        if self._version >= 18:
            changed = f"ALTER TABLE {self._q(booked.name)} ADD"
            yield f"{changed} CONSTRAINT {quoted(self._new())} CHECK (room < 0) NOT ENFORCED"
            yield f"{changed} CONSTRAINT {quoted(self._new())} NOT NULL room NOT VALID"
            yield f"{changed} UNIQUE (span, during WITHOUT OVERLAPS)"
        merged = "(room int CHECK (room < 99), extra text)"
        yield f"CREATE TABLE {self._q(both.name)} {merged} INHERITS ({self._q(booked.name)})"
        both.columns = {**booked.columns, "extra": Kind("text", "repeat('e', i)")}
        yield from self._fill(both, 9)
        yield f"CREATE TABLE {self._q(wide.name)} (a text, b bytea, c text) WITH (toast.autovacuum_enabled = false)"
        yield f"ALTER TABLE {self._q(wide.name)} ALTER COLUMN c SET STORAGE EXTERNAL"
        values = "string_agg(md5((i * k)::text), ''), sha512(i::text::bytea), repeat('c', 9000)"
        yield f"INSERT INTO {self._q(wide.name)} SELECT {values} FROM generate_series(1, 9) i, generate_series(1, 300) k GROUP BY i"
        self._tables += [booked, both, wide]

    # around tables

    def _around(self, table: Table) -> Iterator[str]:
        name = self._q(table.name)
        yield from self._comment(f"TABLE {name}")
        yield from self._indexes(table)
        yield from self._triggers(table)
        for column, kind in table.columns.items():
            if kind.sql in {"text", "jsonb", "bytea"} and self._chance.random() < 0.2:
                change = self._chance.choice(
                    (
                        "SET STORAGE EXTERNAL",
                        "SET STATISTICS 55",
                        "SET COMPRESSION pglz",
                        "SET (n_distinct = 5)",
                    )
                )
                yield f"ALTER TABLE {name} ALTER COLUMN {quoted(column)} {change}"
            yield from self._comment(f"COLUMN {name}.{quoted(column)}")
        if self._chance.random() < 0.2:
            yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
            yield f"CREATE POLICY {quoted(self._new())} ON {name} AS {self._chance.choice(('PERMISSIVE', 'RESTRICTIVE'))} FOR SELECT TO {self._chance.choice(('reader', 'PUBLIC', 'CURRENT_USER'))} USING (current_user <> {text(self._new())})"
        yield from self._maybe_statements(0.2, f"ALTER TABLE {name} REPLICA IDENTITY FULL")

    def _indexes(self, table: Table) -> Iterator[str]:
        methods = {
            "jsonb": "gin",
            "int4range": "gist",
            "point": "gist",
            "tsvector": "gin",
            "box": "spgist",
            "int[]": "gin",
            "inet": "spgist",
        }
        for column, kind in table.columns.items():
            if self._chance.random() > 0.35:
                continue
            index, quotedly = quoted(self._new()), quoted(column)
            if kind.sql in methods:
                made = f"USING {methods[kind.sql]} ({quotedly}{' inet_ops' if kind.sql == 'inet' else ''})"
            elif kind.sql in {"int", "bigint"}:
                made = self._chance.choice(
                    (
                        f"({self._double}({quotedly}))",
                        f"USING brin ({quotedly}) WITH (pages_per_range = 9)",
                        f"({quotedly} DESC NULLS LAST) WHERE {quotedly} > 5",
                    )
                )
            elif kind.sql == "text":
                made = self._chance.choice(
                    (
                        f"(lower({quotedly}) text_pattern_ops)",
                        f'({quotedly} COLLATE "C")',
                        f"USING hash ({quotedly})",
                    )
                )
            elif kind.key:
                made = f"({quotedly}, ({quotedly} IS NULL))"
            else:
                continue
            yield f"CREATE INDEX {index} ON {self._q(table.name)} {made}"
            yield from self._comment(f"INDEX {self._q(self._undo(index))}")
        named = [column for column, kind in table.columns.items() if kind.key]
        numbers = [column for column, kind in table.columns.items() if kind.sql in {"int", "bigint"}]
        for column in map(quoted, numbers[:1]):
            sums = f"({column} + 1), ({column} % 7)"
            yield from self._maybe_statements(
                0.3, f"CREATE STATISTICS {self._q(self._new())} ON {sums} FROM {self._q(table.name)}"
            )
        if len(named) > 1 and self._chance.random() < 0.4:
            kinds = self._maybe(0.5, "(ndistinct, mcv)")
            yield f"CREATE STATISTICS {self._q(self._new())} {kinds} ON {', '.join(map(quoted, named[:3]))} FROM {self._q(table.name)}"

    def _undo(self, name: str) -> str:
        return name[1:-1].replace('""', '"')

    def _triggers(self, table: Table) -> Iterator[str]:
        if self._chance.random() > 0.3:
            return
        trigger, name = quoted(self._new()), self._q(table.name)
        when = self._chance.choice(("BEFORE INSERT OR UPDATE", "AFTER DELETE"))
        yield f"CREATE TRIGGER {trigger} {when} ON {name} FOR EACH ROW {self._maybe(0.4, 'WHEN (pg_trigger_depth() < 9)')} EXECUTE FUNCTION {self._fired}('a', {text(self._new())})"
        yield f"ALTER TABLE {name} {self._chance.choice(('DISABLE', 'ENABLE'))} TRIGGER {trigger}"
        if table.plain:
            yield f"CREATE CONSTRAINT TRIGGER {quoted(self._new())} AFTER INSERT ON {name} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {self._fired}()"
            yield f"CREATE TRIGGER {quoted(self._new())} AFTER UPDATE ON {name} REFERENCING NEW TABLE AS {quoted(self._new())} FOR EACH STATEMENT EXECUTE FUNCTION {self._fired}()"

    def _references(self) -> Iterator[str]:
        """Foreign keys, also of a table to itself, and in circles."""
        targets = [table for table in self._tables if table.keyed and table.rows and table.logged]
        for table in self._tables:
            if not targets or self._chance.random() > 0.5:
                continue
            target, column = self._chance.choice(targets), self._new()
            kind = target.columns[target.key[0]]
            name, to = self._q(table.name), f"{self._q(target.name)} ({quoted(target.key[0])})"
            yield f"ALTER TABLE {name} ADD COLUMN {quoted(column)} {kind.sql}"
            if table.plain and table.rows:
                yield f"UPDATE {name} SET {quoted(column)} = (SELECT {quoted(target.key[0])} FROM {self._q(target.name)} LIMIT 1)"
            action = self._chance.choice(
                ("", "ON DELETE CASCADE", "ON UPDATE SET NULL", "ON DELETE SET DEFAULT")
            )
            late = self._chance.choice(("", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED", "NOT VALID"))
            late = late if table.plain else late.replace("NOT VALID", "")
            yield f"ALTER TABLE {name} ADD CONSTRAINT {quoted(self._new())} FOREIGN KEY ({quoted(column)}) REFERENCES {to} {action} {late}"

    def _views(self) -> Iterator[str]:
        above: list[str] = []
        for table in self._tables:
            if self._chance.random() > 0.4:
                continue
            view, source = self._q(self._new()), self._chance.choice([self._q(table.name), *above[-1:]])
            options = self._maybe(0.3, "WITH (security_barrier, security_invoker = true)")
            yield f"CREATE VIEW {view} {options} AS SELECT *, {text(self._new())} AS {quoted(self._new())} FROM {source}"
            yield from self._comment(f"VIEW {view}")
            filled = self._q(self._new())
            yield f"CREATE MATERIALIZED VIEW {filled} AS SELECT count(*) AS n, max(v::text) AS m FROM {view} v {self._maybe(0.2, 'WITH NO DATA')}"
            yield from self._maybe_statements(
                0.5, f"CREATE UNIQUE INDEX {quoted(self._new())} ON {filled} (n)"
            )
            above.append(view)
            yield from self._odd_views(table)
            if table.plain:
                yield f"CREATE RULE {quoted(self._new())} AS ON INSERT TO {view} DO INSTEAD SELECT 1"

    def _maybe_statements(self, share: float, *statements: str) -> Iterator[str]:
        if self._chance.random() < share:
            yield from statements

    def _odd_views(self, table: Table) -> Iterator[str]:
        """Views that stand on a key, which comes after the rows; that check, fire, and select from all over."""
        name = self._q(table.name)
        if table.primary:
            grouped, key = self._q(self._new()), quoted(table.key[0])
            yield f"CREATE VIEW {grouped} AS SELECT t.*, count(*) AS counted FROM {name} t GROUP BY {key}"
            yield f"CREATE MATERIALIZED VIEW {self._q(self._new())} AS SELECT counted FROM {grouped}"
            yield f"COMMENT ON COLUMN {grouped}.counted IS 'stands on a key'"
        for column in map(quoted, list(table.columns)[:1]):
            checked, trigger = self._q(self._new()), quoted(self._new())
            yield f"CREATE VIEW {checked} ({quoted(self._new())}) AS SELECT {column} FROM {name} WHERE {column} IS NOT NULL WITH LOCAL CHECK OPTION"
            yield f"CREATE TRIGGER {trigger} INSTEAD OF DELETE ON {checked} FOR EACH ROW EXECUTE FUNCTION {self._fired}()"
            yield f"COMMENT ON TRIGGER {trigger} ON {checked} IS {text(trigger)}"
            counted = "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r WHERE n < 3)"
            found = f"LEFT JOIN LATERAL (SELECT {column} FROM {name} OFFSET r.n LIMIT 1) x ON true"
            window = "WINDOW w AS (PARTITION BY n % 2 ORDER BY n ROWS 2 PRECEDING)"
            yield f"CREATE VIEW {self._q(self._new())} AS {counted} SELECT n, lag(x.{column}) OVER w AS l FROM r {found} {window}"

    def _rights(self) -> Iterator[str]:
        yield from self._maybe_statements(
            0.7, f"GRANT USAGE, CREATE ON SCHEMA {quoted(self.name)} TO reader WITH GRANT OPTION"
        )
        for table in self._tables:
            name = self._q(table.name)
            rights = [
                "SELECT",
                "INSERT",
                "UPDATE",
                "TRIGGER",
                "REFERENCES",
                *(["MAINTAIN"] if self._version >= 17 else []),
            ]
            yield from self._maybe_statements(
                0.4, f"GRANT {', '.join(self._some(rights, 3))} ON {name} TO reader, PUBLIC"
            )
            if table.columns:
                column = quoted(self._chance.choice(list(table.columns)))
                yield from self._maybe_statements(
                    0.3, f"GRANT SELECT ({column}), UPDATE ({column}) ON {name} TO leaver WITH GRANT OPTION"
                )
            yield from self._maybe_statements(0.1, f"REVOKE INSERT, DELETE ON {name} FROM CURRENT_USER")
        yield from self._maybe_statements(
            0.5,
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {quoted(self.name)} GRANT EXECUTE ON FUNCTIONS TO reader",
        )
        yield from self._maybe_statements(0.5, f"GRANT USAGE ON SEQUENCE {self._sequence} TO leaver")

    def _others(self) -> Iterator[str]:
        dictionary, configuration = self._q(self._new()), self._q(self._new())
        yield f"CREATE TEXT SEARCH DICTIONARY {dictionary} (TEMPLATE = snowball, LANGUAGE = german)"
        yield f"CREATE TEXT SEARCH CONFIGURATION {configuration} (COPY = simple)"
        yield f"ALTER TEXT SEARCH CONFIGURATION {configuration} ALTER MAPPING FOR word WITH {dictionary}, simple"
        yield f"CREATE COLLATION {self._q(self._new())} (LOCALE = 'C')"
        yield f"CREATE CONVERSION {self._q(self._new())} FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8"
        yield from self._comment(f"TEXT SEARCH CONFIGURATION {configuration}")
        plain = [table for table in self._tables if table.plain and table.logged]
        if plain:
            yield f"CREATE PUBLICATION {quoted(self.name)} FOR TABLE {self._q(plain[0].name)} WITH (publish = 'insert, truncate')"
        yield f"COMMENT ON SCHEMA {quoted(self.name)} IS {text(self.name)}"
