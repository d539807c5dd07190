"""What belongs to a database and not to anything in it: locale, owner, ACL, settings, comment, limit.

pg_dump leaves these out unless it may create the database itself, and a rename loses them.
"""

from __future__ import annotations

from typing import Any

from tenant_backup.engines.marks import mark_of, with_mark, without_mark

from .endpoint import Connection

__all__ = ["mark_of", "read", "with_mark", "without_mark"]

_DATABASE = """
SELECT pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, d.datlocprovider::text,
       to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'daticurules',
       r.rolname, d.datconnlimit, shobj_description(d.oid, 'pg_database')
FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = %s
"""

_ACL = """
SELECT coalesce(r.rolname, ''), e.grantee = 0, e.privilege_type, e.is_grantable
FROM pg_database d CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) e
LEFT JOIN pg_roles r ON r.oid = e.grantee
WHERE d.datname = %s AND (e.grantee = 0 OR r.rolname IS NOT NULL) ORDER BY 2, 1, 4, 3
"""

_SETTINGS = """
SELECT coalesce(r.rolname, ''), s.setconfig
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE d.datname = %s AND (s.setrole = 0 OR r.rolname IS NOT NULL) ORDER BY 1
"""

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


def read(connection: Connection, database: str) -> dict[str, Any] | None:
    """Return the properties of a database as plain JSON, None when there is no such database.

    Shape: {encoding, collate, ctype, provider, locale, icuRules, owner, connectionLimit, comment,
    acl: [{grantee ("" is PUBLIC), privilege, grantable}], settings: [{role ("" is everybody), values}]}.
    """
    found = connection.execute(_DATABASE, (database,)).fetchone()
    if found is None:
        return None
    encoding, collate, ctype, provider, locale, icu_locale, icu_rules, owner, limit, comment = found
    return {
        "encoding": encoding,
        "collate": collate,
        "ctype": ctype,
        "provider": _PROVIDERS.get(provider, "libc"),
        "locale": locale or icu_locale,
        "icuRules": icu_rules,
        "owner": owner,
        "connectionLimit": limit,
        "comment": without_mark(comment),
        "acl": _acl(connection, database),
        "settings": [
            {"role": role, "values": values} for role, values in connection.execute(_SETTINGS, (database,))
        ],
    }


def _acl(connection: Connection, database: str) -> list[dict[str, Any]]:
    return [
        {"grantee": "" if public else grantee, "privilege": privilege, "grantable": grantable}
        for grantee, public, privilege, grantable in connection.execute(_ACL, (database,)).fetchall()
    ]
