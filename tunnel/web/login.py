"""Who may use the page: the password's hash in a file, sessions, and how often may be tried.

The file of `NAME.conf` is `NAME.web` beside it, for its owner only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from tunnel.linux.files import read_plain, replace_file
from tunnel.linux.json_text import read_json
from tunnel.web.errors import WebError

MIN_PASSWORD: Final = 10
"""Characters; NIST SP 800-63B asks for 8, where guesses are limited as here."""

MAX_PASSWORD: Final = 1024

LIFETIME: Final = 12 * 3600.0
"""Seconds after which a session ends in any case."""

IDLE: Final = 1800.0
"""Seconds without a request after which a session ends: the page, while it is open, sends some."""

MAX_SESSIONS: Final = 64

_COST: Final = {"n": 1 << 15, "r": 8, "p": 1}
"""Of scrypt: 32 MiB and about a tenth of a second for each try."""

_LENGTH: Final = 32
"""Bytes of a hash."""

_MOST: Final = {"n": 1 << 20, "r": 32, "p": 16}
"""What a file may ask for."""


class PasswordFileError(WebError):
    """The file of the password cannot be used; the text says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "password_file", message)


class PasswordFile:
    """The hash of the password of a page."""

    def __init__(self, conf: Path) -> None:
        self.path = conf.with_name(f"{conf.name.removesuffix('.conf')}.web")

    def is_there(self) -> bool:
        """Whether a password was set."""
        return self.path.exists()

    def stamp(self) -> tuple[int, int]:
        """Another one for each password that was set, (0, 0) for none."""
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def set(self, password: str) -> None:
        """Replace the password. Raises PasswordFileError, and then the old one holds."""
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise PasswordFileError(
                f"the password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters"
            )
        salt = os.urandom(16)
        digest = Scrypt(salt=salt, length=_LENGTH, **_COST).derive(password.encode())
        stored = {**_COST, "salt": _text(salt), "hash": _text(digest)}
        try:
            replace_file(self.path, json.dumps({"scrypt": stored}) + "\n", mode=0o600)
        except OSError as error:
            raise PasswordFileError(f"cannot write {self.path}: {error.strerror}") from None

    def check(self, password: str) -> bool:
        """Whether it is this one; takes its time. Raises PasswordFileError."""
        try:
            stored = read_json(read_plain(self.path))["scrypt"]
            cost = {name: int(stored[name]) for name in _COST}
            salt, digest = (base64.b64decode(stored[name]) for name in ("salt", "hash"))
            is_ours = all(0 < cost[name] <= most for name, most in _MOST.items())
            # An empty hash would be that of every password.
            if not is_ours or len(digest) != _LENGTH:
                raise ValueError
            scrypt = Scrypt(salt=salt, length=_LENGTH, **cost)
            scrypt.verify(password[:MAX_PASSWORD].encode(errors="replace"), digest)
        except InvalidKey:
            return False
        except (OSError, ValueError, KeyError, TypeError):
            raise PasswordFileError(
                f"{self.path} cannot be read, or was damaged: set a password with --set-password"
            ) from None
        return True


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(slots=True)
class WebSession:
    """One who is logged in. Times are those of the clock of Sessions."""

    csrf: str
    stamp: tuple[int, int]
    until: float
    seen: float


class Sessions:
    """Those who are logged in, by the hash of what their cookie says."""

    def __init__(self, stamp: Callable[[], tuple[int, int]], clock: Callable[[], float]) -> None:
        self._stamp = stamp
        self._clock = clock
        self._of: OrderedDict[bytes, WebSession] = OrderedDict()

    def open(self) -> tuple[str, WebSession]:
        """A new session and its cookie; the oldest one ends if there are too many."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        session = WebSession(secrets.token_urlsafe(32), self._stamp(), now + LIFETIME, now)
        self._of[_digest(token)] = session
        while len(self._of) > MAX_SESSIONS:
            self._of.popitem(last=False)
        return token, session

    def find(self, token: str) -> WebSession | None:
        """The session of a cookie, unless it has ended, or the password is another one now."""
        session = self._of.get(_digest(token))
        if session is None:
            return None
        now = self._clock()
        if now >= session.until or now >= session.seen + IDLE or session.stamp != self._stamp():
            self.close(token)
            return None
        session.seen = now
        return session

    def close(self, token: str) -> None:
        """End the session of a cookie."""
        self._of.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def is_same(given: str, expected: str) -> bool:
    """Whether two tokens are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


@dataclass(slots=True)
class _Bucket:
    most: int
    every: float
    clock: Callable[[], float]
    left: float = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.at = float(self.most), self.clock()

    def wait(self) -> float:
        """Seconds until there is something to take."""
        now = self.clock()
        self.left = min(float(self.most), self.left + (now - self.at) / self.every)
        self.at = now
        return max(0.0, (1 - self.left) * self.every)


class Attempts:
    """Bounds how often a password is tried: by address (of IPv6, by /64), and by all together."""

    PER_ADDRESS: Final = (5, 30.0)
    """So many at once, and one more each so many seconds."""
    TOGETHER: Final = (60, 2.0)
    _ADDRESSES: Final = 4096

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._together = _Bucket(*self.TOGETHER, clock)
        self._of: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str) -> None:
        """Count a try. Raises WebError if it is one too many."""
        who = _place(address)
        bucket = self._of.setdefault(who, _Bucket(*self.PER_ADDRESS, self._clock))
        self._of.move_to_end(who)
        if len(self._of) > self._ADDRESSES:
            self._of.popitem(last=False)
        wait = max(bucket.wait(), self._together.wait())
        if wait:
            seconds = int(wait) + 1
            raise WebError(
                429, "too_many", f"too many attempts: wait {seconds} s", retry_after=seconds
            )
        bucket.left -= 1
        self._together.left -= 1

    def succeeded(self, address: str) -> None:
        """Forget the tries of an address."""
        self._of.pop(_place(address), None)


def _place(address: str) -> str:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address
