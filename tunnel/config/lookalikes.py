"""What looks like part of a conf but is another program's: formats, keys, comments, notations.

To say what it is helps more than to say what it is not. Nothing here decides whether a text is
accepted: it is asked about what was refused. Nothing of a value is shown but entries of lists.

A conf may have megabytes, and a line of it, too. So no pattern here begins to match a run of
characters at each of them: it would take the square of their number.
"""

import re
import unicodedata
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Final, NamedTuple

from tunnel.config.problems import Mistake, quote

__all__ = [
    "COMMENT",
    "explain",
    "foreign_bytes",
    "foreign_key",
    "foreign_mark",
    "foreign_text",
]

COMMENT: Final = re.compile(r"\s*(;|//|/\*|\*/|--|<!--)")
"""How comments begin in other kinds of files."""

_TRAILING: Final = re.compile(r"\s(?:;|//|/\*|--|<!--).*|;\s.*", re.DOTALL)
_QUOTED: Final = re.compile(r"(?:\"(.*)\"|'(.*)'|“(.*)”|‘(.*)’)", re.DOTALL)
_PLACEHOLDER: Final = re.compile(r"<[^<>]*>|\{\{.*\}\}|\$\{?[A-Za-z_]\w*\}?")
_BETWEEN: Final = re.compile(r"[\s,;|]+")
_INTERFACE: Final = re.compile(r"^[^\S\n]*\[\s*interface\s*\]", re.IGNORECASE | re.MULTILINE)


class _Format(NamedTuple):
    sign: re.Pattern[str]
    name: str
    remedy: str


_BY_HAND: Final = "write its values under [Interface] and [Peer], as docs/conf.md lists them"
_IMPORT: Final = "convert it: tunnel import FILE"
_NEEDED: Final = "ask for the conf of a WireGuard tunnel"


def _format(sign: str, name: str, remedy: str) -> _Format:
    return _Format(re.compile(sign, re.IGNORECASE | re.MULTILINE), name, remedy)


_FORMATS: Final = (
    _format(r"\A\s*[{\[]\s*[\"{]", "JSON", _BY_HAND),
    _format(r"\A\s*<(\?xml|!doctype|html)", "a web page or XML", "download the conf itself"),
    _format(r"\A-----BEGIN ", "a key or certificate in PEM", _NEEDED),
    _format(r"\A#!\s*/", "a script", "name the conf, and run the script by itself"),
    _format(r"\A\s*[A-Za-z0-9+/]{43}=\s*\Z", "a bare key", "name the conf that the key is for"),
    _format(
        r"\A\s*[a-z][a-z0-9+.-]*://\S+\s*\Z",
        "a link for an app",
        "have the program that made it export a .conf file",
    ),
    _format(
        r"^[^\S\n]*\[(connection|wireguard-peer\.[^\]]*)\]",
        "a keyfile of NetworkManager, which brings it up itself (nmcli connection up)",
        _IMPORT,
    ),
    _format(
        r"^[^\S\n]*\[(NetDev|WireGuard|WireGuardPeer)\]",
        "a file of systemd-networkd, which brings it up itself",
        _IMPORT,
    ),
    _format(r"^[^\S\n]*\[Unit\]", "a unit of systemd", "name the conf that it starts"),
    _format(r"^[^\S\n]*config\s+(interface|wireguard_\w+)\b", "a file of OpenWrt's uci", _IMPORT),
    _format(r"^interface: \S+$", "the output of `wg show`", "use that of `wg showconf INTERFACE`"),
    _format(
        r"^(private|public|preshared)_key=[0-9a-f]{64}$",
        "what a daemon says of its interface by its socket",
        "use the output of `wg showconf INTERFACE`",
    ),
    _format(r"^(network|proxies|endpoints|outbounds|services|version):|\A- \w+:", "YAML", _BY_HAND),
    _format(r"^/(interface|ip)\b", "an export of RouterOS", _IMPORT),
    _format(r"^set interfaces wireguard\b", "commands of VyOS", _IMPORT),
    _format(
        r"^interfaces (wireguard|\{)",
        "a configuration of VyOS or EdgeOS",
        "convert what `show configuration commands` prints there: tunnel import FILE",
    ),
    _format(r"^interface [a-z]+[\d/.]+\s*$", "the configuration of a router", _BY_HAND),
    _format(r"\bnetworking\.(wireguard|wg-quick)\b", "a configuration of NixOS", _BY_HAND),
    _format(
        r"\A(sudo )?(wg|wg-quick|ip|nft|iptables) [a-z-]+ ",
        "commands for a shell",
        "run them as such, or write their values under [Interface] and [Peer]",
    ),
    _format(r"\A[a-z]+_[a-z_]+=", "the environment of a container", "name the conf in it"),
    _format(
        r"^[^\S\n]*(client|dev\s+tun\d*|remote\s+\S+(\s+\d+)?|<ca>|proto\s+(udp|tcp)\S*)\s*$",
        "a conf of OpenVPN",
        f"use it with openvpn, or {_NEEDED}",
    ),
    _format(r"^conn\s+\S+\s*$", "a conf of IPsec", f"use it with ipsec, or {_NEEDED}"),
)

_MAGIC: Final = (
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it: the confs are inside"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: the conf is inside"),
    (b"\x89PNG", "a picture", "scan the QR code, and save its text as the conf"),
    (b"\xff\xd8\xff", "a picture", "scan the QR code, and save its text as the conf"),
    (b"%PDF", "a PDF", "save the text of the conf in it as a file"),
    (b"\x7fELF", "a program", "name the conf"),
)


def foreign_bytes(data: bytes) -> Mistake | None:
    """What a file is that is no text, by its first bytes; None if not known."""
    for magic, name, remedy in _MAGIC:
        if data.startswith(magic):
            return Mistake(f"is {name}, not a conf", remedy)
    return None


def foreign_text(text: str) -> tuple[int, Mistake] | None:
    """What a text without [Interface] is, and the line that shows it; None if not known."""
    if _INTERFACE.search(text):
        return None
    for sign, name, remedy in _FORMATS:
        found = sign.search(text)
        if found is not None:
            line = text.count("\n", 0, found.end() - len(found[0].lstrip())) + 1
            return line, Mistake(f"looks like {name}, not a conf for WireGuard", remedy)
    return None


_AMNEZIA: Final = (
    "a key of AmneziaWG, which disguises its packets: such a peer does not understand ours",
    "use AmneziaWG with this conf, or ask for a conf of plain WireGuard",
)
_APP: Final = (
    "a key of an app that chooses which programs use the tunnel: here all of them do",
    "put # in front",
)
_WARP: Final = (
    "a key of clients for Cloudflare WARP, which mark their packets with it: ours stay unmarked",
    "put # in front: it usually works without",
)
_LABEL: Final = ("only a label", "put # in front")
_FOREIGN: Final = {
    **dict.fromkeys(("jc", "jmin", "jmax", "itime"), _AMNEZIA),
    **dict.fromkeys((f"{a}{n}" for a in "shij" for n in range(1, 6)), _AMNEZIA),
    **dict.fromkeys(("includedapplications", "excludedapplications"), _APP),
    **dict.fromkeys(("allowedapps", "disallowedapps"), _APP),
    **dict.fromkeys(["reserved", "clientid"], _WARP),
    **dict.fromkeys(["name", "description", "id"], _LABEL),
    **dict.fromkeys(
        ("disallowedips", "excludedips"),
        (
            "a key of WireSock and apps, for networks that stay outside",
            "leave them out of AllowedIPs, and put # in front",
        ),
    ),
    "firewallmark": ("systemd-networkd's name of a key", "write it as FwMark"),
    "routetable": ("systemd-networkd's name of a key", "write it under [Interface], as Table"),
}


def foreign_key(name: str) -> Mistake | None:
    """What a key (in lower case, without white space) is that none of our sections has."""
    found = _FOREIGN.get(name)
    return None if found is None else Mistake(f"is {found[0]}", found[1])


def foreign_mark(line: str) -> Mistake | None:
    """What a line without white space is that other programs put into texts of any kind."""
    if re.match(r"<{7}|={7}|>{7}", line):
        remedy = "keep one of the two versions between the marks, and remove the marks"
        return Mistake("this line marks a merge conflict", remedy)
    if line.startswith("```"):
        return Mistake("this line is a mark of Markdown", "remove it")
    return None


def _plain(text: str) -> str:
    """Without what only looks like the characters that were meant, or like nothing."""
    plain = unicodedata.normalize("NFKC", text)
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    return plain.translate(dict.fromkeys(map(ord, "“”‘’"))).strip()


def _in_ascii(text: str) -> str:
    """With a name of another script in its xn-- form."""
    host, colon, port = text.rpartition(":")
    try:
        return f"{host.encode('idna').decode()}{colon}{port}"
    except UnicodeError:
        return text


def _with_length(text: str) -> str:
    """With prefix lengths for netmasks after a blank, and for wildcard masks."""

    def as_length(found: re.Match[str]) -> str:
        try:
            return f"{found[1]}/{IPv4Network(f'0.0.0.0/{found[2]}').prefixlen}"
        except ValueError:
            return found[0]

    return re.sub(r"(?<![0-9.])([0-9.]+)(?: +(?=255\.)|/(?=0\.))([0-9.]+)", as_length, text)


def _whole(text: str) -> str:
    """With all four numbers of each network."""

    def filled(found: re.Match[str]) -> str:
        numbers = found[1].split(".")
        length = found[2] or f"/{8 * len(numbers)}"
        return ".".join([*numbers, *["0"] * (4 - len(numbers))]) + length

    return re.sub(r"(?<![\w.:])(\d+(?:\.\d+){0,2})(?:\.\*)*(/\d+|(?<=\*)(?![\w.]))", filled, text)


_REPAIRS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("has characters that only look like the right ones", _plain),
    ("has white space in it", lambda text: re.sub(r"(?<!\s)\s*([/:])\s*", r"\1", text)),
    ("has brackets that do not belong there", lambda text: re.sub(r"[][]", "", text)),
    ("has zeros in front of numbers", lambda text: re.sub(r"\b0+(?=\d)", "", text)),
    ("has an extra sign at its end", lambda text: text.rstrip(" ;,.")),
    ('has an extra "=" in it', lambda text: re.sub(r"^([A-Za-z]{1,20} *)?=\s*", "", text)),
    (
        "has a unit after its number",
        lambda text: re.sub(r"(?<!\s)\s*(s|sec|seconds|bytes)$", "", text),
    ),
    ("has a protocol after its port", lambda text: re.sub(r"^(\d+) */ *(udp|tcp)$", r"\1", text)),
    ("has a user before the host", lambda text: text.rpartition("@")[2]),
    ("has a name in another script", _in_ascii),
)
"""What may be wrong with a value, and what it then was meant to be."""

_NETWORK_REPAIRS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("has a network that is not written in full", _whole),
    (
        "has a word for all networks",
        lambda text: re.sub(r"^(any|all|default|everything|\*)$", "0.0.0.0/0, ::/0", text.lower()),
    ),
)


def explain(text: str, read: Callable[[str], object], *, listed: bool = False) -> Mistake | None:
    """What is wrong with a value that `read` refuses, if another notation explains it.

    `listed` is whether several entries, with commas between them, are allowed.
    """

    def is_read(part: str) -> bool:
        try:
            read(part)
        except Mistake:
            return False
        return True

    def repaired(fault: str, repair: Callable[[str], str]) -> Mistake | None:
        meant = repair(text)
        items = [item.strip() for item in meant.split(",")] if listed else [meant]
        if meant == text or not all(map(is_read, items)):
            return None
        shown = quote(meant)
        return Mistake(fault, f"write {shown}" if shown.startswith('"') else "write it without")

    if text.lower() in ("(none)", "(hidden)"):
        return Mistake(f'is "{text}", as `wg show` prints it', "remove the line, or add the value")
    if _PLACEHOLDER.fullmatch(text):
        return Mistake("has the placeholder of a template for its value", "add the value itself")
    quoted = _QUOTED.fullmatch(text)
    if quoted and is_read(next(part for part in quoted.groups() if part is not None)):
        return Mistake("has its value in quotation marks", "remove them")
    if listed and re.search(r",\s*,|^,|,$", text):
        return Mistake("has an empty entry", "remove the extra comma")
    masked = repaired("has a netmask in place of a prefix length", _with_length)
    if masked is not None:
        return masked
    parts = [part for part in _BETWEEN.split(text) if part]
    if listed:
        # A word of a comment is a search domain, too.
        are_read = all(is_read(part) and ("." in part or ":" in part) for part in parts)
    else:
        are_read = all(map(is_read, parts))
    if len(parts) > 1 and are_read:
        if not listed:
            return Mistake(
                f"takes one value, but has {len(parts)}",
                "keep one of them",
            )
        wanted = quote(", ".join(parts))
        return Mistake("has entries without a comma between them", f"write {wanted}")
    bare = _TRAILING.sub("", text).strip()
    items = [item.strip() for item in bare.split(",")] if listed else [bare]
    if bare != text and all(map(is_read, items)):
        return Mistake(
            "has a comment after its value, as other programs write them",
            "begin the comment with #",
        )
    more = _NETWORK_REPAIRS if is_read("0.0.0.0/0") else ()
    for fault, repair in (*_REPAIRS, *more):
        mistake = repaired(fault, repair)
        if mistake is not None:
            return mistake
    ranged = re.search(r"(?<=\d)\s*-\s*\d+\Z", text)
    if ranged is not None and is_read(text[: ranged.start()]):
        return Mistake("has a range, but takes one value", "keep one of them")
    return None
