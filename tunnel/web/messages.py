"""What crosses between the page and its server, as JSON: one dataclass for each body."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.control.messages import Message


@dataclass(frozen=True, slots=True)
class Password(Message):
    """What logs in."""

    password: str


@dataclass(frozen=True, slots=True)
class SessionInfo(Message):
    """One who is logged in. `csrf` goes into the header X-CSRF-Token of all that changes anything,
    `until` is the Unix time at which the session ends, 0.0 for never.
    """

    csrf: str
    until: float
    tunnel: str


@dataclass(frozen=True, slots=True)
class PeerView(Message):
    """A peer. `id` is its public key in the alphabet of URLs.

    `state` is `online` (a handshake in the last three minutes), `away`, `never` (no handshake since
    the tunnel came up), `disabled`, `expired`, or `unknown` while the tunnel does not run.
    `latest_handshake` and `expires` are Unix times, 0.0 for none. `in_conf` is false for one that
    was added by `wg set` and is in no conf; it cannot be changed here. `link_until` is the Unix
    time until which a one-time link waits for it, 0.0 for none.
    """

    id: str
    name: str
    public_key: str
    addresses: tuple[str, ...]
    state: str
    endpoint: str
    latest_handshake: float
    rx_bytes: int
    tx_bytes: int
    expires: float
    in_conf: bool
    link_until: float


@dataclass(frozen=True, slots=True)
class State(Message):
    """The hub at the Unix time `now`.

    `running` says whether the tunnel is up, and `problem` in words what is wrong, empty for
    nothing. `endpoint` is where peers reach it, empty if that is not known yet; `networks` are
    those of its addresses. The totals are those of the peers that run. `log_changes` counts the
    entries of the log.
    """

    now: float
    name: str
    conf: str
    running: bool
    problem: str
    public_key: str
    endpoint: str
    listen_port: int
    addresses: tuple[str, ...]
    networks: tuple[str, ...]
    since: float
    rx_bytes: int
    tx_bytes: int
    log_changes: int
    peers: tuple[PeerView, ...]


@dataclass(frozen=True, slots=True)
class PeerTraffic(Message):
    """Counters of a peer, one for each time of the list that it is in."""

    id: str
    times: tuple[float, ...]
    rx_bytes: tuple[int, ...]
    tx_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Traffic(Message):
    """The counters of the last minutes; the page adds those of each State."""

    peers: tuple[PeerTraffic, ...]


@dataclass(frozen=True, slots=True)
class LogEntry(Message):
    """What happened at the Unix time `time`.

    `kind` is `connected`, `disconnected`, `moved`, `login`, `login_refused`, `added`, `removed`,
    `renamed`, `disabled`, `enabled`, `expires`, `new_keys`, `link_made` or `link_taken`; `peer` is
    the name of the peer, `address` where it, or who did it, was.
    """

    time: float
    kind: str
    peer: str
    address: str


@dataclass(frozen=True, slots=True)
class Log(Message):
    """The newest entries, newest first. `problem` says why they are not kept, empty if they are."""

    entries: tuple[LogEntry, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class Wanted(Message):
    """What is asked for the conf of a peer.

    `name` is not used for new keys. `expires` is a time as `tunnel peer add --expires` takes it
    (`7d`, 2026-12-31T23:59:59Z), empty for never; `endpoint` is HOST or HOST:PORT, empty for the
    known one. `addresses` are its own, by default the next free ones. `reach` are networks that it
    sends through the tunnel, by default those of the hub; `excluded` are left out of these.
    """

    name: str = ""
    expires: str = ""
    endpoint: str = ""
    addresses: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes(Message):
    """What is to change of a peer; what is None stays. `expires` as in Wanted."""

    name: str | None = None
    disabled: bool | None = None
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class Done(Message):
    """A change that is in the conf. `notice` says what else there is to know, as that the tunnel
    does not run; empty for nothing.
    """

    notice: str


@dataclass(frozen=True, slots=True)
class Handout(Message):
    """The conf of a peer, which cannot be shown again: no one else has its private key.

    `qr` are the rows of its QR code, each a text of 0 and 1, none if the conf is too large for one.
    `id` names it for a one-time link, empty where there can be none.
    """

    name: str
    file: str
    conf: str
    qr: tuple[str, ...]
    id: str
    notice: str


@dataclass(frozen=True, slots=True)
class LinkRequest(Message):
    """A handout, and for how many seconds a link may wait for whom it is for."""

    handout: str
    seconds: int


@dataclass(frozen=True, slots=True)
class LinkMade(Message):
    """A one-time link: `token` opens it, until the Unix time `until`."""

    token: str
    until: float


@dataclass(frozen=True, slots=True)
class LinkToken(Message):
    """What opens a one-time link."""

    token: str


@dataclass(frozen=True, slots=True)
class Failure(Message):
    """A request that was refused: one word for programs, and words for people."""

    code: str
    message: str
