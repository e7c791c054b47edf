"""One reader per kind of value. Each returns the value or raises Mistake, nothing else.

A reader that accepts a text with a reservation returns it as Doubtful.
"""

import re
import socket
from functools import lru_cache
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Final, Generic, Literal, NamedTuple, TypeVar, cast, get_args

from crypto.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from tunnel.config.problems import Mistake, describe_secret, quote
from tunnel.config.tables import number_of

__all__ = ["MTU_MAX", "MTU_MIN", "AllowedIP", "Doubtful", "EndpointConfig"]

MTU_MIN: Final = 576
"""The least every IPv4 host must be able to reassemble (RFC 791)."""
"""The least an IPv6 link may have (RFC 8200, section 5); the kernel drops IPv6 below it."""
MTU_MAX: Final = 65455
"""65,535 minus an IPv6 and a UDP header (48) and WireGuard's own 32."""

_DECIMAL: Final = re.compile(r"[0-9]{1,10}")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}")
_PREFIX: Final = re.compile(r"[0-9]{1,3}")
_HOST_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LONGEST_NAME: Final = 15
_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
_SPACE_FOR_COLON: Final = re.compile(r"[^\s:,;]+[\s,;]+[0-9]{1,5}")
_URL: Final = re.compile(
    r"(?:(?:[A-Za-z][A-Za-z0-9+.-]*:)?//)?(?:[^@/]*@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:]+)(?:/[0-9]+(?=:))?(?P<ports>(?::[0-9]{1,5})*)(?:/.*)?"
)
_KEY_LENGTH: Final = 44
_ZERO_KEY: Final = "A" * (_KEY_LENGTH - 1) + "="

Datapath = Literal["auto", "python", "native"]
AutoSwitch = Literal["auto", "on", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]
RecordKind = Literal["off", "sessions", "flows"]
Modifier = Literal["", "+", "-"]
Table = Literal["auto", "off"] | int

_T = TypeVar("_T")


class Doubtful(NamedTuple, Generic[_T]):
    """A value that was read, and a warning about its text (as of Mistake, without a subject)."""

    value: _T
    fault: str
    remedy: str


class AllowedIP(NamedTuple):
    """One entry of AllowedIPs: the network, host bits cleared, and wg's modifier.

    `+` adds to what the peer has, `-` takes away from it; without one the list replaces.
    """

    network: IPv4Network | IPv6Network
    modifier: Modifier = ""

    def __str__(self) -> str:
        return f"{self.modifier}{self.network}"


class EndpointConfig(NamedTuple):
    """Where a peer is reached: `host` is a name or an address (IPv6 with its %scope, no
    brackets), `port` 1–65535. Names are not resolved here.
    """

    host: str
    port: int

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address, or None if the host is a name."""
        try:
            return IPv6Address(self.host) if ":" in self.host else IPv4Address(self.host)
        except AddressValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Metrics = Literal["unix", "off"] | EndpointConfig

_BROADCAST: Final = IPv4Address("255.255.255.255")


def squeeze(text: str) -> str:
    """Remove all white space, as `wg` does before it looks at a line."""
    return "".join(text.split())


def _wrong(text: str, expected: str, remedy: str) -> Mistake:
    if not text:
        return Mistake(f"is empty: it must be {expected}", remedy)
    return Mistake(f"must be {expected}, not {quote(text)}", remedy)


def _wrong_key(text: str, remedy: str) -> Mistake:
    # Nothing of it is shown: a truncated private key can end up in the line of any key.
    if not text:
        return Mistake("is empty: it must be 44 characters of base64 ending in '='", remedy)
    found = describe_secret(text)
    form = _form_of_key(text)
    if form is not None:
        return Mistake(form[0], form[1] or remedy)
    return Mistake(f"must be 44 characters of base64 ending in '=', not {found}", remedy)


def _form_of_key(text: str) -> tuple[str, str] | None:
    """What a value is that was meant as a key, and a remedy if it is another than to paste it."""
    if re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", text):
        return "is in hexadecimal, and must be in base64", "write its 32 bytes in base64"
    if text.startswith("-----BEGIN"):
        return "is in PEM, and must be 44 characters of base64", ""
    if re.match(r"(~|/(etc|home|root|run|usr|var))/\S+|\./\S+", text):
        return "is the name of a file", "write it as PrivateKeyFile or PresharedKeyFile"
    if re.fullmatch(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=?", text) and re.search("[_-]", text):
        return "is in the base64 of URLs", "write + in place of -, and / in place of _"
    if re.fullmatch(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]", text):
        return "lacks the '=' at its end", "add it"
    if len(text) == _KEY_LENGTH:
        return "is not a key: a character of it is wrong (not shown)", ""
    return None


def check_name(name: str) -> None:
    """Refuse, by a Mistake, a name that no interface can have."""
    if len(name) > _LONGEST_NAME and _NAME.fullmatch(name[:_LONGEST_NAME]):
        raise Mistake(
            f"has at most {_LONGEST_NAME} characters, and {quote(name)} has {len(name)}",
            "give the conf a shorter name, as in office.conf",
        )
    # The kernel keeps "." and ".." for itself.
    if _NAME.fullmatch(name) is None or name in (".", ".."):
        raise _wrong(
            name,
            "1 to 15 letters, digits and _ = + . -",
            "rename the file to INTERFACE.conf, as in office.conf",
        )


def private_key(text: str) -> PrivateKey:
    """Read a private key as `wg genkey` prints it; all zeros are no key."""
    remedy = "paste the key that `tunnel genkey` printed"
    text = squeeze(text)
    if text == _ZERO_KEY:
        raise Mistake("is the all-zero key, which is not a private key", remedy)
    try:
        return PrivateKey.from_base64(text)
    except KeyFormatError:
        raise _wrong_key(text, remedy) from None


def public_key(text: str) -> PublicKey:
    """Read a public key as `wg pubkey` prints it."""
    text = squeeze(text)
    try:
        return PublicKey.from_base64(text)
    except KeyFormatError:
        raise _wrong_key(text, "paste the key that `tunnel pubkey` printed on the peer") from None


def preshared_key(text: str) -> PresharedKey | None:
    """Read a preshared key as `wg genpsk` prints it; all zeros mean none."""
    text = squeeze(text)
    try:
        key = PresharedKey.from_base64(text)
    except KeyFormatError:
        raise _wrong_key(
            text, "paste the key that `tunnel genpsk` printed, the same on both sides"
        ) from None
    return None if key.is_zero else key


def listen_port(text: str) -> int:
    """Read a UDP port, 0 for any."""
    if _DECIMAL.fullmatch(text) is None or int(text) > 65535:
        raise _wrong(
            text, "a port from 0 to 65535", "write 51820, or remove the line for any free port"
        )
    return int(text)


def fwmark(text: str) -> int:
    """Read a 32-bit mark, decimal or 0x…; `off` is 0."""
    if text.lower() == "off":
        return 0
    value = _number(text)
    if value is None or value > 0xFFFFFFFF:
        raise _wrong(
            text,
            "a number from 0 to 4294967295, decimal or 0x…, or off",
            "write 0xca6c, or remove the line for no mark",
        )
    return value


def mtu(text: str) -> int:
    """Read an MTU in bytes."""
    value = int(text) if _DECIMAL.fullmatch(text) else -1
    if not MTU_MIN <= value <= MTU_MAX:
        raise _wrong(
            text,
            f"a number of bytes from {MTU_MIN} to {MTU_MAX}",
            "remove the line to have it computed from the route to the peer",
        )
    return value


def table(text: str) -> Table:
    """Read a routing table: auto, off, a number, or a name that iproute2 knows."""
    lower = text.lower()
    if lower == "auto":
        return "auto"
    if lower == "off":
        return "off"
    value = _number(text) or number_of(text)
    if not value or value > 0xFFFFFFFF:
        raise _wrong(
            text,
            "auto, off, the number of a routing table from 1 to 4294967295, or its name",
            "remove the line for auto, write a number, or add the name to /etc/iproute2/rt_tables",
        )
    return value


def keepalive(text: str) -> int:
    """Read seconds between keepalives; `off` is 0."""
    if text.lower() == "off":
        return 0
    if _DECIMAL.fullmatch(text) is None or int(text) > 65535:
        raise _wrong(
            text,
            "a number of seconds from 0 to 65535, or off",
            "write 25 if the peer must reach this host through NAT, otherwise remove the line",
        )
    return int(text)


def time_limit(text: str) -> int:
    """Read the seconds of a time limit; `off` is 0, for none."""
    if text.lower() == "off":
        return 0
    if _DECIMAL.fullmatch(text) is None or not 1 <= int(text) <= 86_400:
        raise _wrong(
            text, "a number of seconds from 1 to 86400, or off", "write 90, or remove the line"
        )
    return int(text)


def boolean(text: str) -> bool:
    """Read `true` or `false`."""
    lower = text.lower()
    if lower not in ("true", "false"):
        raise _wrong(text, "true or false", "write true, or remove the line for false")
    return lower == "true"


def switch(text: str) -> bool:
    """Read `on` or `off`; `yes` and `no` are the same."""
    lower = text.lower()
    if lower not in ("on", "off", "yes", "no"):
        raise _wrong(text, "on or off", "write on or off, or remove the line for the default")
    return lower in ("on", "yes")


def auto_switch(text: str) -> AutoSwitch:
    """Read `auto`, `on` or `off`; `yes` and `no` are the same as the last two."""
    match text.lower():
        case "auto":
            return "auto"
        case "on" | "yes":
            return "on"
        case "off" | "no":
            return "off"
    raise _wrong(text, "auto, on or off", "remove the line for auto")


def datapath(text: str) -> Datapath:
    """Read which pair of packet functions to use."""
    choices: dict[str, Datapath] = {"auto": "auto", "python": "python", "native": "native"}
    choice = choices.get(text.lower())
    if choice is None:
        raise _wrong(text, "auto, python or native", "remove the line for auto")
    return choice


def log_level(text: str) -> LogLevel:
    """Read the least level of lines in the log."""
    for level in get_args(LogLevel):
        if text.lower() == level:
            return cast(LogLevel, level)
    raise _wrong(text, "debug, info, warning or error", "remove the line for info")


def records(text: str) -> RecordKind:
    """Read what is recorded."""
    for kind in get_args(RecordKind):
        if text.lower() == kind:
            return cast(RecordKind, kind)
    raise _wrong(text, "sessions, flows or off", "remove the line for off")


def metrics(text: str) -> Metrics:
    """Read where metrics are served. A host name would need a resolver before the tunnel is up."""
    words: dict[str, Metrics] = {"unix": "unix", "off": "off"}
    word = words.get(text.lower())
    if word is not None:
        return word
    try:
        found = _host_and_port(text)
    except Mistake:
        found = EndpointConfig("", 0)
    if isinstance(found, Doubtful) or found.address is None:
        raise _wrong(
            text,
            "unix, off or ADDRESS:PORT, without host names",
            "remove the line for unix, or write an address as 127.0.0.1:9586 or [::1]:9586",
        )
    return found


def hook(text: str) -> str:
    """Read a shell command; anything goes that can be passed to a shell on one line."""
    if any(character < " " and character != "\t" for character in text):
        raise _wrong(
            text,
            "a shell command without control characters",
            "put the command into a script and call that",
        )
    if is_continued(text):
        # wg-quick would run the first line alone, and give the rest to wg.
        raise Mistake(
            "ends in a backslash, but a line of a conf cannot be continued on the next one",
            "write the whole command on one line, or put it into a script and call that",
        )
    return text


def is_continued(command: str) -> bool:
    """Whether a shell would go on reading on the next line: a backslash that is not escaped."""
    return (len(command) - len(command.rstrip("\\"))) % 2 == 1


def file_name(text: str) -> str:
    """Read the name of a key file."""
    if not text or not text.isprintable():
        raise _wrong(
            text, "the name of a file", "write it relative to the folder of this conf, or in full"
        )
    return text


def namespace(text: str) -> str:
    """Read a network namespace: its name, or the absolute path of its file."""
    is_path = text.startswith("/") and text.isprintable()
    if not is_path and (re.fullmatch(r"[^\s/]{1,255}", text) is None or text in (".", "..")):
        raise _wrong(
            text,
            "the name of a network namespace, or the path of one",
            "write a name that `ip netns list` shows, or a path as /proc/1234/ns/net",
        )
    return text


def mode(text: str) -> Literal["tun", "tap"]:
    """Read what the interface carries."""
    match text.lower():
        case "tun":
            return "tun"
        case "tap":
            return "tap"
        case _:
            raise _wrong(text, "tun or tap", "write tap for Ethernet frames, or tun for IP packets")


def bridge(text: str) -> str:
    """Read the name of a bridge."""
    try:
        check_name(text)
    except Mistake:
        raise _wrong(
            text, "the name of a bridge", "write a name of 1 to 15 letters and digits, as br0"
        ) from None
    return text


_INTERFACE_REMEDY: Final = "write it as 10.0.0.1/24 or fd00::1/64"


def address(text: str) -> IPv4Interface | IPv6Interface:
    """Read an address of the interface with its prefix length (whole if there is none)."""
    host, prefix = _split_prefix(
        _with_length(text), text, "an IPv4 or IPv6 address", _INTERFACE_REMEDY
    )
    is_netmask = isinstance(host, IPv4Address) and int(host) >= 0xFF000000
    if host.is_multicast or host.is_unspecified or is_netmask:
        raise _wrong(
            text,
            "an address that a host can have",
            _INTERFACE_REMEDY + ", with this host's own address",
        )
    if isinstance(host, IPv4Address):
        return IPv4Interface((int(host), prefix))
    return IPv6Interface((int(host), prefix))


def _with_length(text: str) -> str:
    """An address with a dotted netmask, as `ip` takes it, with a prefix length in its place."""
    host, slash, mask = text.partition("/")
    try:
        inverted = 0xFFFFFFFF ^ int(IPv4Address(mask))
    except AddressValueError:
        return text
    # Ones, then zeros: its inverse is a power of two minus one.
    if ":" in host or inverted & (inverted + 1):
        return text
    return f"{host}{slash}{32 - inverted.bit_length()}"


def allowed_ip(text: str) -> AllowedIP | Doubtful[AllowedIP]:
    """Read an entry of AllowedIPs. Host bits are cleared, with a warning."""
    # Most entries are plain IPv4 networks; 100,000 of them should load in about a second.
    bare = text[1:] if text[:1] in ("+", "-") else text
    remedy = "write 10.0.0.0/24 or fd00::/64, with commas between"
    if bare.count(".") > 3 and _with_length(bare) != bare:
        remedy = f"wg takes no netmask here: write {_with_length(bare)}"
    host, prefix = _split_prefix(bare, text, "IPv4 or IPv6 networks", remedy)
    number = int(host)
    network: IPv4Network | IPv6Network
    if isinstance(host, IPv4Address):
        masked = number >> (32 - prefix) << (32 - prefix)
        network = IPv4Network((masked, prefix))
    else:
        masked = number >> (128 - prefix) << (128 - prefix)
        network = IPv6Network((masked, prefix))
    modifier: Modifier = "+" if text[:1] == "+" else "-" if text[:1] == "-" else ""
    allowed = AllowedIP(network, modifier)
    if masked == number:
        return allowed
    return Doubtful(
        allowed, f"has host bits set in {quote(text)}", f"it is taken as {network}: write that"
    )


def dns(text: str) -> IPv4Address | IPv6Address | str:
    """Read the address of a DNS server, or a search domain; `~domain` and `~.` are domains too."""
    if ":" in text or re.fullmatch(r"[0-9.]*[0-9][0-9.]*", text) is not None:
        server = plain_address(text)
        if server is not None:
            return server
    elif text in (".", "~.") or _is_host_name(text.removeprefix("~")):
        return text
    raise _wrong(
        text,
        "the address of a DNS server or a search domain",
        "write it as 10.0.0.53, fd00::53 or corp.example; other scripts in their xn-- form",
    )


def endpoint(text: str) -> EndpointConfig | Doubtful[EndpointConfig]:
    """Read where a peer is reached. An IPv6 address without brackets is read with a warning."""
    found = _host_and_port(text)
    address = (found.value if isinstance(found, Doubtful) else found).address
    if address is not None and not is_of_one_host(address):
        raise _wrong(
            text,
            "the address of one host",
            "write the address or name at which the peer is reached, or remove Endpoint if the "
            "peer sends the first message",
        )
    return found


def is_of_one_host(address: IPv4Address | IPv6Address) -> bool:
    """Whether it can be the address of a peer: not 0.0.0.0 or ::, multicast or broadcast."""
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return not (address.is_unspecified or address.is_multicast or address == _BROADCAST)


def _host_and_port(text: str) -> EndpointConfig | Doubtful[EndpointConfig]:
    if "/" in text:
        raise _not_a_url(text)
    separated = _SPACE_FOR_COLON.fullmatch(text)
    if separated is not None:
        remedy = "put a colon between host and port, and nothing else"
        raise _wrong(text, "host:port", remedy)
    text = squeeze(text)

    def wrong(remedy: str) -> Mistake:
        return _wrong(text, "host:port", remedy)

    def port(digits: str) -> int:
        if _DECIMAL.fullmatch(digits) is None or not 1 <= int(digits) <= 65535:
            raise _wrong(
                text, "host:port with a port from 1 to 65535", "WireGuard's usual port is 51820"
            )
        return int(digits)

    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise wrong("write an IPv6 endpoint as [fd00::1]:51820")
        number = port(rest[1:])
        if not _is_scoped_address(host):
            raise wrong("write an IPv6 address between the brackets, as in [fd00::1]:51820")
        return EndpointConfig(host, number)
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise wrong(f"add the port, as in {_example(text)}:51820")
    if ":" in host:
        # `wg` takes what stands after the last colon as the port, brackets or not.
        if not _is_scoped_address(host):
            raise wrong("write an IPv6 endpoint as [fd00::1]:51820")
        bare = EndpointConfig(host, port(digits))
        return Doubtful(
            bare,
            f"has an IPv6 address without brackets, {quote(text)}",
            f"it is taken as {bare}: write that",
        )
    number = port(digits)
    if re.fullmatch(r"[0-9.]+", host):
        if plain_address(host) is None:
            raise wrong("an IPv4 address has four numbers up to 255, as in 192.0.2.1:51820")
    elif not _is_host_name(host):
        raise wrong(
            "a host name has letters, digits, '-' and '.'; write other scripts in their xn-- form"
        )
    return EndpointConfig(host, number)


def _not_a_url(text: str) -> Mistake:
    """The mistake of an endpoint with a scheme, a path, a protocol or a prefix length."""
    found = _URL.fullmatch(squeeze(text))
    host = found["host"] if found else ""
    usable = plain_address(host.strip("[]")) is not None or _example(host) == host
    place = host if usable else "vpn.example.com"
    ports = found["ports"].split(":")[1:] if found else []
    if len(ports) == 1:
        remedy = f"write {place}:{ports[0]}"
    elif ports:
        remedy = f"write host and UDP port alone: {place}: and the one port of the WireGuard server"
    else:
        remedy = f"write host and UDP port alone, as {place}:51820"
    return _wrong(text, "host:port and no URL, protocol or prefix length", remedy)


def _is_host_name(text: str) -> bool:
    name = text.removesuffix(".")
    return len(name) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in name.split("."))


def _example(text: str) -> str:
    """Return the text as the host of an example, if it can be one."""
    usable = len(text) <= 40 and _is_host_name(text)
    return text if usable and quote(text).startswith('"') else "vpn.example.com"


def _is_scoped_address(text: str) -> bool:
    address, percent, scope = text.partition("%")
    if percent and _NAME.fullmatch(scope) is None:
        return False
    try:
        IPv6Address(address)
    except AddressValueError:
        return False
    return True


def plain_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address without scope, as inet_pton does."""
    if "%" in text or not text.isascii():
        return None
    try:
        return IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        return None


def _number(text: str) -> int | None:
    if _NUMBER.fullmatch(text) is None:
        return None
    return int(text, 16) if text[:2] in ("0x", "0X") else int(text)


@lru_cache(maxsize=256)
def _prefix(text: str, most: int) -> int | None:
    if _PREFIX.fullmatch(text) is None or int(text) > most:
        return None
    return int(text)


def _split_prefix(
    text: str, shown: str, expected: str, remedy: str
) -> tuple[IPv4Address | IPv6Address, int]:
    host_text, slash, prefix_text = text.partition("/")
    host = plain_address(host_text)
    if host is None:
        if not shown:
            raise Mistake("has an empty entry", "remove the extra comma")
        raise _wrong(shown, expected, remedy)
    most = 32 if isinstance(host, IPv4Address) else 128
    prefix = _prefix(prefix_text, most) if slash else most
    if prefix is None:
        raise Mistake(
            f"must have a prefix length from 0 to {most} after the slash, not {quote(shown)}",
            remedy,
        )
    return host, prefix


def network_text(version: int, address: int, length: int) -> str:
    """A network as text; much faster than by the module ipaddress."""
    if version == 4:
        text = socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
    else:
        text = socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))
    return f"{text}/{length}"
