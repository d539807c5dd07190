"""What a server keeps of a password, computed here: no statement has the password itself."""

from __future__ import annotations

import hashlib
import secrets

_SALT_CHARACTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 5000


def native(password: str) -> str:
    """Return the clause of CREATE USER for a MariaDB."""
    digest = hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()  # noqa: S324
    return f"IDENTIFIED VIA mysql_native_password USING '*{digest}'"


def caching_sha2(password: str) -> str:
    """Return the clause of CREATE USER for a MySQL, which has no other kind any more."""
    salt = "".join(secrets.choice(_SALT_CHARACTERS) for _ in range(20))
    kept = f"$A$005${salt}{_sha256_crypt(password.encode(), salt.encode())}"
    return f"IDENTIFIED WITH caching_sha2_password AS '{kept}'"


def _sha256_crypt(key: bytes, salt: bytes) -> str:
    """Return the 43 characters of Ulrich Drepper's SHA-crypt; the salt may be longer than crypt(3) takes it.

    https://www.akkadia.org/drepper/SHA-crypt.txt, whose steps are numbered here.
    """
    other = hashlib.sha256(key + salt + key).digest()  # 4-8
    first = hashlib.sha256(key + salt + _repeated(other, len(key)))  # 1-3, 9, 10
    bits = len(key)
    while bits:  # 11
        first.update(other if bits & 1 else key)
        bits >>= 1
    digest = first.digest()  # 12
    long_key = _repeated(hashlib.sha256(key * len(key)).digest(), len(key))  # 13-16
    long_salt = _repeated(hashlib.sha256(salt * (16 + digest[0])).digest(), len(salt))  # 17-20
    for round_ in range(_ROUNDS):  # 21
        mixed = long_key if round_ & 1 else digest
        mixed += long_salt if round_ % 3 else b""
        mixed += long_key if round_ % 7 else b""
        digest = hashlib.sha256(mixed + (digest if round_ & 1 else long_key)).digest()
    return _base64(digest)


def _repeated(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def _base64(digest: bytes) -> str:  # 22
    groups = [(0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14), (15, 25, 5), (6, 16, 26)]
    groups += [(27, 7, 17), (18, 28, 8), (9, 19, 29)]
    numbers = [(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in groups]
    numbers.append((digest[31] << 8 | digest[30], 3))
    return "".join(_SALT_CHARACTERS[n >> (6 * i) & 63] for n, count in numbers for i in range(count))
