"""Which tables give rows to a backup, and which columns of them: pure functions over what a database lists.

A name that matches nothing is an error before anything is dumped: a typing error in an exclusion would put a
password into a backup, one in a module would leave its rows out.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from tenant_backup.contract.job import Column, Module
from tenant_backup.contract.reasons import Failure, Reason

_SHOWN = 5  # names in one message


class Table(Protocol):
    """What is asked of every engine's tables."""

    @property
    def oid(self) -> int:
        """A number of its own among the tables of one listing."""
        ...

    @property
    def full_name(self) -> str:
        """schema.table, unquoted: how job descriptions and manifests name it."""
        ...

    @property
    def holds_rows(self) -> bool:
        """Whether rows are in the table itself; else in those below it, or nowhere."""
        ...

    @property
    def parents(self) -> tuple[int, ...]:
        """The tables it is a part of."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns a backup can carry: not those that are generated."""
        ...

    @property
    def generated(self) -> tuple[str, ...]:
        """The columns the server computes."""
        ...

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Its columns in order, empty without one."""
        ...

    @property
    def required(self) -> frozenset[str]:
        """The columns that may not be NULL."""
        ...

    @property
    def filled(self) -> frozenset[str]:
        """The columns that get a value from the server when none is given."""
        ...


class ForeignKey(Protocol):
    """A reference from one table to another."""

    @property
    def name(self) -> str:
        """Its name, which other tables' may have, too."""
        ...

    @property
    def table(self) -> int:
        """The table that has it."""
        ...

    @property
    def references(self) -> int:
        """The table it points to."""
        ...


TableT = TypeVar("TableT", bound=Table)
KeyT = TypeVar("KeyT", bound=ForeignKey)


@dataclass(frozen=True)
class Policy:
    """What a job asks for: modules that are known, modules wanted (none: all), and what to leave out."""

    modules: list[Module] = field(default_factory=list)
    only_modules: list[str] = field(default_factory=list)
    exclude_tables: list[str] = field(default_factory=list)
    exclude_columns: list[Column] = field(default_factory=list)


@dataclass(frozen=True)
class Choice(Generic[TableT]):
    """The answer for one table: whether its rows are taken, and which columns are left out."""

    table: TableT
    with_rows: bool
    excluded: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # that claim it

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that leave the server, in the table's order."""
        return tuple(name for name in self.table.columns if name not in self.excluded)


def choose(tables: Sequence[TableT], policy: Policy) -> list[Choice[TableT]]:
    """Decide for every table. Raises Failure TABLE_NOT_FOUND, COLUMN_NOT_FOUND or INVALID_SPEC."""
    tree = _Tree(tables)
    members = {module.name: _named(tree, module.tables, f"module {module.name}") for module in policy.modules}
    wanted = _wanted(members, policy.only_modules)
    left_out = _named(tree, policy.exclude_tables, "exclusions.tables")
    columns = _excluded_columns(tree, policy.exclude_columns)
    return [
        Choice(
            table,
            with_rows=table.holds_rows
            and table.oid not in left_out
            and (wanted is None or table.oid in wanted),
            excluded=tuple(name for name in table.columns if name in columns.get(table.oid, set())),
            modules=tuple(name for name, claimed in members.items() if table.oid in claimed),
        )
        for table in tables
    ]


def unclaimed(choices: Sequence[Choice[TableT]], policy: Policy) -> list[str]:
    """Name the tables whose rows are in no module, if there are modules; of a tree of them the one on top.

    `choices` are those of everything.
    """
    if not policy.modules:
        return []
    nobodys = {choice.table.oid: choice.table for choice in choices if not choice.modules}

    def top(table: TableT) -> TableT:
        above = next((oid for oid in table.parents if oid in nobodys), None)
        return table if above is None else top(nobodys[above])

    found = (top(choice.table) for choice in choices if choice.with_rows and not choice.modules)
    return list(dict.fromkeys(table.full_name for table in found))


def leaving_keys(choices: Sequence[Choice[TableT]], keys: Sequence[KeyT]) -> list[str]:
    """Say which foreign keys cannot hold after a restore: of everything, and of each module alone.

    `choices` are those of everything.
    """
    names = {choice.table.oid: choice.table.full_name for choice in choices}
    loose = loose_foreign_keys(choices, keys)
    told, known = [f"{names[key.table]}.{key.name}" for key in loose], set(loose)
    inside = [key for key in keys if key not in known]
    for module in dict.fromkeys(name for choice in choices for name in choice.modules):
        alone = [replace(one, with_rows=one.with_rows and module in one.modules) for one in choices]
        leaving = loose_foreign_keys(alone, inside)
        told += [f"{names[key.table]}.{key.name} (module {module})" for key in leaving]
    return told


def loose_foreign_keys(choices: Sequence[Choice[TableT]], keys: Sequence[KeyT]) -> list[KeyT]:
    """Return the foreign keys that cannot hold after a restore: rows they refer to are not in the backup."""
    tree = _Tree([choice.table for choice in choices])
    with_rows = {choice.table.oid for choice in choices if choice.with_rows}
    leaves = {choice.table.oid for choice in choices if choice.table.holds_rows}

    def complete(oid: int) -> bool:
        return tree.below(oid) & leaves <= with_rows

    return [key for key in keys if not complete(key.references) and tree.below(key.table) & with_rows]


def shown(names: list[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


class _Tree:
    """Tables with their partitions and children: what is said of a parent holds for those below it."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = {table.oid: table for table in tables}
        self.by_name = {table.full_name: table.oid for table in tables}
        self._children: dict[int, list[int]] = {}
        for table in tables:
            for parent in table.parents:
                self._children.setdefault(parent, []).append(table.oid)

    def below(self, oid: int) -> set[int]:
        """The table itself and everything below it."""
        found: set[int] = set()
        waiting = [oid]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(self._children.get(current, []))
        return found

    def matching(self, pattern: str) -> set[int]:
        """The tables a name or a pattern such as public.hr_* stands for."""
        exact = self.by_name.get(pattern)
        names = (
            [exact]
            if exact is not None
            else [oid for name, oid in self.by_name.items() if fnmatch.fnmatchcase(name, pattern)]
        )
        return set().union(*(self.below(oid) for oid in names)) if names else set()


def _named(tree: _Tree, patterns: list[str], where: str) -> set[int]:
    found: set[int] = set()
    for pattern in patterns:
        matched = tree.matching(pattern)
        if not matched:
            message = f'table "{pattern}" of {where} does not exist in the database; correct the Tenant'
            raise Failure(Reason.TABLE_NOT_FOUND, message)
        found |= matched
    return found


def _wanted(members: dict[str, set[int]], only: list[str]) -> set[int] | None:
    unknown = [name for name in only if name not in members]
    if unknown:
        message = (
            f"the Tenant has no module {shown(unknown)}; its modules are {shown(sorted(members)) or 'none'}"
        )
        raise Failure(Reason.INVALID_SPEC, message)
    return set().union(*(members[name] for name in only)) if only else None


def _excluded_columns(tree: _Tree, columns: list[Column]) -> dict[int, set[str]]:
    excluded: dict[int, set[str]] = {}
    for column in columns:
        oid = tree.by_name.get(column.table)
        if oid is None:
            message = f'table "{column.table}" of exclusions.columns does not exist; correct the Tenant'
            raise Failure(Reason.TABLE_NOT_FOUND, message)
        _check_column(tree.tables[oid], column.column)
        for below in tree.below(oid):
            _check_policy(tree.tables[below], column)
            excluded.setdefault(below, set()).add(column.column)
    for oid, names in excluded.items():
        if not set(tree.tables[oid].columns) - names:
            message = f"every column of {tree.tables[oid].full_name} is excluded; exclude the table instead"
            raise Failure(Reason.INVALID_SPEC, message)
    return excluded


def _check_column(table: Table, column: str) -> None:
    if column in table.generated:
        message = (
            f'column "{column}" of {table.full_name} is generated and never in a backup; exclude its sources'
        )
        raise Failure(Reason.INVALID_SPEC, message)
    if column not in table.columns:
        message = f'column "{column}" of table {table.full_name} does not exist; correct exclusions.columns'
        raise Failure(Reason.COLUMN_NOT_FOUND, message)
    if column in table.primary_key:
        message = f'column "{column}" is in the primary key of {table.full_name}; exclude the table instead'
        raise Failure(Reason.INVALID_SPEC, message)


def _check_policy(table: Table, rule: Column) -> None:
    """Raise INVALID_SPEC for a rule by which rows could not come back, and say which one they could by."""
    if not table.holds_rows:
        return
    if rule.on_restore == "KeepLive" and not table.primary_key:
        message = f"onRestore: KeepLive finds rows by their primary key, and {table.full_name} has none"
        raise Failure(Reason.INVALID_SPEC, f"{message}; use Null, Default or Value for {rule.column}")
    has_value = rule.value is not None or (rule.column in table.filled and rule.on_restore != "Null")
    if rule.column not in table.required or has_value:
        return
    what = f'column "{rule.column}" of {table.full_name} is NOT NULL'
    if rule.on_restore == "Null":
        other = "Default or Value" if rule.column in table.filled else "Value"
        raise Failure(Reason.INVALID_SPEC, f"{what}; use onRestore: {other}")
    if rule.on_restore == "Default":
        raise Failure(Reason.INVALID_SPEC, f"{what} and has no default; use onRestore: Value")
    message = f"{what} and has no default, and rows that are not in the live database need a value"
    raise Failure(Reason.INVALID_SPEC, f"{message}; give one as else")
