"""What lies in files, what the kernel says, and texts that may come from anywhere."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

from crypto.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from tests.support.fuzz.target import Target
from tunnel import config, convert
from tunnel.config import ConfigErrors, tables
from tunnel.containers.docker.store import Store
from tunnel.containers.errors import ContainerError
from tunnel.daemon import attach_target
from tunnel.engine import session_record
from tunnel.engine.quota_file import QuotaFile
from tunnel.engine.session_record import SessionRecord, SessionRecordError
from tunnel.errors import DaemonError
from tunnel.host import record
from tunnel.host.errors import HostError
from tunnel.host.route_messages import _route_untrusted
from tunnel.host.watch import parse_link_messages
from tunnel.linux import netlink
from tunnel.linux.json_text import read_json
from tunnel.log.redact import printable, redact
from tunnel.packet.filter import Filter, FilterError
from tunnel.trace.nftrace import decode
from tunnel.trace.ruleset import Ruleset

KEY = PrivateKey.from_random(bytes(range(32)))
DEEP = b"[" * 100_000
VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)
JSON_WORDS = (
    b'{"', b'": ', b"[", b"]}", b"null", b"true", b"1e999", b"NaN", b"-1", b'"\\ud800"', b'""',
    b"9" * 5000, DEEP, b"{}", b'"version": 1',
)  # fmt: skip


NAMES = b"PrivateKey=", b"AllowedIPs=", b"10.0.0.0/8", b"0.0.0.0/0", b"fd00::/64", b"51820"
CONVERTERS = (
    (
        "networkmanager",
        "tunnel.convert.networkmanager",
        (b"[wireguard]\n", b"[wireguard-peer.", b"[ipv4]\n", b"route1=", b"peer-routes=", *NAMES),
    ),
    (
        "networkd",
        "tunnel.convert.networkd",
        (b"[WireGuard]\n", b"[WireGuardPeer]\n", b"[Route]\n", b"\\\n", b"RouteTable=", *NAMES),
    ),
    (
        "openwrt",
        "tunnel.convert.openwrt",
        (b"config interface 'wg0'\n", b"option ", b"list ", b"config wireguard_wg0\n", *NAMES),
    ),
    (
        "routeros",
        "tunnel.convert.routeros",
        (b"/interface/wireguard/add ", b"/ip/route\nadd ", b'"', b"\\\n", b"interface=wg1", *NAMES),
    ),
    (
        "vyos",
        "tunnel.convert.vyos",
        (b"set interfaces wireguard wg0 ", b"set protocols static route ", b"peer a ", *NAMES),
    ),
    ("wg-quick", "tunnel.convert.wgquick", (b"[Interface]\n", b"[Peer]\n", b"Jc = 4\n", *NAMES)),
)
"""Each format, the module that reads it, and pieces of it."""


@cache
def folder() -> Path:
    """Where targets that read a file put it."""
    made = Path(tempfile.mkdtemp(prefix="tunnel-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


# --- The kernel ----------------------------------------------------------------------------------


def run_netlink(data: bytes) -> None:
    """Answers and events of the kernel."""
    list(netlink.attributes(data))
    list(parse_link_messages(data, 7))
    list(decode(data, 0.0))
    for _, body in netlink.messages(data):
        for version in VERSIONS:
            with contextlib.suppress(OSError):
                assert _route_untrusted(version, body).destination


# --- Files ---------------------------------------------------------------------------------------


def run_conf(data: bytes) -> None:
    """A conf. What was read is written so that it reads the same, and saved into its own text."""
    text = data.decode("utf-8", "surrogateescape")
    found = config.parse(text, name="wg0", folder=folder() / "none")
    again = config.parse(config.dump(found), name="wg0", folder=folder() / "none")
    assert again.peers == found.peers
    assert config.merge(text, found, folder=folder() / "none") == text, "saving changes the file"


ROUTE_COMMAND = re.compile(r"ip -[46] route add [0-9a-f.:]+/[0-9]+ dev %i( table [0-9]+)?")


def converter(form: convert.Format) -> Callable[[bytes], None]:
    """The files of another program. The conf that is made of them is one, and is exported again."""

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        source = convert.ForeignFile("file", text, folder() / "none")
        found = convert.read([source], form=form, name="wg0")
        assert all(str(each).isprintable() for each in found.lost)
        again = config.parse(found.text, name="wg0", folder=folder() / "none")
        assert again.peers == found.config.peers
        if form is not convert.FORMATS["wg-quick"]:
            for hook in found.config.interface.post_up:
                assert ROUTE_COMMAND.fullmatch(hook), "a command that no route means"
        for other in convert.FORMATS.values():
            convert.write(found.config, other)

    return run


def run_record(data: bytes) -> None:
    """The record of what was done to the machine."""
    (folder() / "wg0.state").write_bytes(data)
    found = record.load_record("wg0", folder())
    assert found is not None
    assert record.parse(record.render(found)) == found


def run_attachment(data: bytes) -> None:
    """The record of where a tunnel is attached."""
    path = folder() / "wg0.attach"
    path.write_bytes(data)
    found = attach_target.read_target(path)
    assert str(found)


def run_session_records(data: bytes) -> None:
    """The file in which sessions outlive a daemon: bytes at its header, or at entries."""
    places = (0, session_record._PEERS_AT, session_record._SESSIONS_AT)
    record = SessionRecord.create(bytes(16))
    kept = os.dup(record.fileno())
    record.close()
    try:
        os.pwrite(kept, data[1:], places[int.from_bytes(data[:1]) % len(places)])
        record = SessionRecord.adopt(kept, bytes(16))
        kept = -1
        found = record.read()
        for _, peer in found.peers:
            assert peer.endpoint is None or str(peer.endpoint)
        assert len({session.place for session in found.sessions}) == len(found.sessions)
        again = record.read()
        assert (again.peers, again.sessions) == (found.peers, found.sessions), "read otherwise"
        assert not again.damaged, "what is damaged is wiped"
        record.close()
    finally:
        if kept >= 0:
            os.close(kept)


def run_quotas(data: bytes) -> None:
    """The file of what peers have used of their quotas."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wg0.quota")
        path.write_bytes(data)
        file = QuotaFile(path)
        begun, used = file.get(bytes(32))
        file.set(bytes(32), begun, used)
        assert not file.problem
        assert QuotaFile(path).get(bytes(32)) == (begun, used)
        file.close()


def run_store(data: bytes) -> None:
    """The records of Docker's networks."""
    store = Store(folder())
    store.path.write_bytes(data)
    found = store.load()
    store.save(found)
    assert store.load() == found


def run_tables(data: bytes) -> None:
    """The names of routing tables."""
    list(tables._entries(data.decode("utf-8", "replace")))


def run_ruleset(data: bytes) -> None:
    """The listing of nft."""
    Ruleset.parse(data.decode("utf-8", "replace"))


def run_filter(data: bytes) -> None:
    """A packet filter, as a client of the control socket sends it."""
    found = Filter.parse(data.decode("utf-8", "replace"))
    assert Filter.parse(found.text) == found
    assert all(rule.isprintable() for rule in found.nft())


def run_keys(data: bytes) -> None:
    """The text of a key."""
    text = data.decode("utf-8", "surrogateescape")
    refusals = []
    for kind in (PublicKey, PrivateKey, PresharedKey):
        for read in (kind.from_base64, kind.from_hex):
            try:
                made = read(text)
            except KeyFormatError as error:
                refusals.append(error)
            else:
                raw = b64decode(text) if read == kind.from_base64 else bytes.fromhex(text)
                assert text in (b64encode(raw).decode(), raw.hex()) or text.lower() == raw.hex()
                assert made == kind.from_bytes(raw), "it is clamped at most"
    assert len(text) < 8 or not any(text in str(each) for each in refusals), "a key in an error"
    if len(refusals) == 6:
        raise refusals[0]


def run_log(data: bytes) -> None:
    """A text of a stranger in the log: it cannot write a line of its own, or move the cursor."""
    text = data.decode("utf-8", "surrogateescape")
    assert printable(redact(text)).isprintable() or text.isspace() or not text


def run_json(data: bytes) -> None:
    """JSON of any kind; for what is read all numbers are finite, and it can be written again."""
    try:
        found = read_json(data)
    except ValueError:
        return
    json.dumps(found, allow_nan=False)


TARGETS = (
    Target(
        name="netlink",
        reads=(
            "tunnel.linux.netlink",
            "tunnel.host.watch",
            "tunnel.host.route_messages",
            "tunnel.trace.nftrace",
        ),
        run=run_netlink,
        words=(
            b"\x20\0\0\0\x10\0\0\0",
            b"\x24\0\0\0\x18\0\0\0",
            b"\x08\0\x03\0",
            b"\x11\x0a",
            b"\x08\0\x09\0",
        ),
    ),
    Target(
        name="confs",
        reads=(
            "tunnel.config.parser",
            "tunnel.config.lexer",
            "tunnel.config.values",
            "tunnel.config.lookalikes",
            "tunnel.config.expiry",
            "tunnel.config.edit",
        ),
        run=run_conf,
        refusal=ConfigErrors,
        base=20_000,
        per_byte=400,
        words=(
            b"[Interface]\nPrivateKey = " + KEY.to_base64().encode() + b"\n",
            b"[Peer]\nPublicKey = " + KEY.public_key().to_base64().encode() + b"\n",
            b"AllowedIPs = 10.0.0.0/8, ",
            b"Address = 10.0.0.1/24\n",
            b"Endpoint = [::1]:5\n",
            b"PostUp = ",
            b"# expires = 2026-01-01\n",
            b"MTU = ",
            b"#!",
            b"\xff",
            b"\\\n",
            b"\r",
            b"DNS = a, ",
            b"Table = ",
        ),
    ),
    *(
        Target(
            name=f"convert_{name}",
            reads=(converting, "tunnel.convert.draft"),
            run=converter(convert.FORMATS[name]),
            refusal=ConfigErrors,
            base=40_000,
            per_byte=300,
            room=4 << 20,
            room_per_byte=2_000,
            words=words,
        )
        for name, converting, words in CONVERTERS
    ),
    Target(
        name="state_files",
        reads=("tunnel.host.record", "tunnel.linux.files", "tunnel.linux.json_text"),
        run=run_record,
        refusal=HostError,
        per_byte=60,
        words=(
            b'{"version": 1, "interface": "wg0", "ifindex": 7, "netns": 1, ',
            b'"sysctls": {}, "dns": "", "items": [',
            b'{"kind": "rule", "version": 4, "priority": ',
            b'{"kind": "address", "value": "10.0.0.1/8"}',
            b'{"kind": "firewall", "versions": ',
            b'"hooks": {"pre_down": ',
            *JSON_WORDS,
        ),
    ),
    Target(
        name="attachments",
        reads=("tunnel.daemon.attach_target",),
        run=run_attachment,
        refusal=DaemonError,
        words=(b'{"kind": "pid", "name": "7"', b'"started": ', b'"kind": []', *JSON_WORDS),
    ),
    Target(
        name="session_records",
        reads=("tunnel.engine.session_record",),
        run=run_session_records,
        refusal=SessionRecordError,
        words=(bytes(32), b"\4", b"\x10", b"\xfe\x80" + bytes(14)),
    ),
    Target(
        name="quotas",
        reads=("tunnel.engine.quota_file",),
        run=run_quotas,
        per_byte=200,
        words=(bytes(32), bytes(64)),
    ),
    Target(
        name="network_records",
        reads=("tunnel.containers.docker.store",),
        run=run_store,
        refusal=ContainerError,
        per_byte=200,
        words=(
            b'{"version": 1, "networks": {"a": ',
            b'"pools": {"b": {"conf": "wg0", "pool": "10.0.0.0/8", ',
            b'"part": null, "given": []}}',
            b'{"conf": "wg0", "pools": [], "gateways": [], "internal": false, "mtu": ',
            *JSON_WORDS,
        ),
    ),
    Target(
        name="table_names",
        reads=("tunnel.config.tables",),
        run=run_tables,
        words=(b"255 local\n", b"0x1f a\n", b"9" * 5000 + b" b\n", b"# "),
    ),
    Target(
        name="rulesets",
        reads=("tunnel.trace.ruleset",),
        run=run_ruleset,
        words=(
            b"table inet f {\n",
            b"\tchain c {\n",
            b"\t\ttype filter hook input priority -1; policy drop;\n",
            b"\t\ttcp dport 5 accept # handle 7\n",
            b"# handle " + b"9" * 5000 + b"\n",
            "²".encode(),
        ),
    ),
    Target(
        name="filters",
        reads=("tunnel.packet.filter",),
        run=run_filter,
        refusal=FilterError,
        words=(
            b"tcp ",
            b"port 5 ",
            b"not ",
            b"( ",
            b") ",
            b"and ",
            b"or ",
            b"host 10.0.0.1 ",
            b"9" * 5000,
            b"icmp ",
        ),
    ),
    Target(
        name="keys",
        reads=("crypto.keys",),
        run=run_keys,
        refusal=KeyFormatError,
        words=(KEY.to_base64().encode(), KEY.to_hex().encode(), b"=", b"A" * 43),
    ),
    Target(
        name="log_texts",
        reads=("tunnel.log.redact",),
        run=run_log,
        words=(b"\x1b[2J", b"\n", KEY.to_base64().encode(), b"\xff", "\u202e".encode()),
    ),
    Target(
        name="json",
        reads=("tunnel.linux.json_text",),
        run=run_json,
        words=JSON_WORDS,
    ),
)
