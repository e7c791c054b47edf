"""One parser per kind of value. Each returns the value or raises Mistake, nothing else."""

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
from typing import Final, Literal

from crypto.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from tunnel.config.lexer import squeeze
from tunnel.config.model import AllowedIP, Datapath, EndpointConfig, Metrics, Table
from tunnel.config.problems import Mistake, describe_secret, quote

__all__ = ["MTU_MAX", "MTU_MIN", "MTU_MIN_IPV6"]

MTU_MIN: Final = 576
"""The least every IPv4 host must be able to reassemble (RFC 791)."""
MTU_MIN_IPV6: Final = 1280
"""The least an IPv6 link may have (RFC 8200, section 5); the kernel drops IPv6 below it."""
MTU_MAX: Final = 65455
"""65,535 minus an IPv6 and a UDP header (48) and WireGuard's own 32."""

_DECIMAL: Final = re.compile(r"[0-9]{1,10}")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}")
_PREFIX: Final = re.compile(r"[0-9]{1,3}")
_HOST_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SCOPE: Final = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")
_ZERO_KEY: Final = "A" * 43 + "="
_TABLES: Final = {"main": 254, "local": 255, "default": 253}

_KEY_EXPECTED: Final = "44 characters of base64 ending in '='"


def private_key(text: str) -> PrivateKey:
    """Read a private key as `wg genkey` prints it; all zeros are no key."""
    remedy = "paste the key as `tunnel genkey` printed it"
    text = squeeze(text)
    if text == _ZERO_KEY:
        raise Mistake("a private key", remedy, found="the all-zero key, which is no key")
    try:
        return PrivateKey.from_base64(text)
    except KeyFormatError:
        raise Mistake(_KEY_EXPECTED, remedy, found=describe_secret(text)) from None


def public_key(text: str) -> PublicKey:
    """Read a public key as `wg pubkey` prints it."""
    text = squeeze(text)
    try:
        return PublicKey.from_base64(text)
    except KeyFormatError:
        # Not shown either: a cut-off private key ends up here more often than one thinks.
        raise Mistake(
            _KEY_EXPECTED,
            "paste the peer's key as `tunnel pubkey` printed it there",
            found=describe_secret(text),
        ) from None


def preshared_key(text: str) -> PresharedKey | None:
    """Read a preshared key as `wg genpsk` prints it; all zeros mean none."""
    text = squeeze(text)
    try:
        key = PresharedKey.from_base64(text)
    except KeyFormatError:
        raise Mistake(
            _KEY_EXPECTED,
            "paste the key as `tunnel genpsk` printed it, the same on both sides",
            found=describe_secret(text),
        ) from None
    return None if key.is_zero else key


def listen_port(text: str) -> int:
    """Read a UDP port, 0 for any."""
    if _DECIMAL.fullmatch(text) is None or int(text) > 65535:
        raise Mistake("a port from 0 to 65535", "write 51820, or leave the line out for any port")
    return int(text)


def fwmark(text: str) -> int:
    """Read a 32-bit mark, decimal or 0x…; `off` is 0."""
    if text.lower() == "off":
        return 0
    value = _number(text)
    if value is None or value > 0xFFFFFFFF:
        raise Mistake(
            "a number from 0 to 4294967295, also as 0x…, or off",
            "write 0xca6c, or leave the line out for no mark",
        )
    return value


def mtu(text: str) -> int:
    """Read an MTU in bytes."""
    value = int(text) if _DECIMAL.fullmatch(text) else -1
    if not MTU_MIN <= value <= MTU_MAX:
        raise Mistake(
            f"a number of bytes from {MTU_MIN} to {MTU_MAX}",
            "leave the line out to have it computed from the route to the peer",
        )
    return value


def table(text: str) -> Table:
    """Read a routing table: auto, off, a number, or one of the kernel's three names."""
    lower = text.lower()
    if lower == "auto":
        return "auto"
    if lower == "off":
        return "off"
    value = _TABLES.get(lower) or _number(text)
    if not value or value > 0xFFFFFFFF:
        raise Mistake(
            "auto, off, or the number of a routing table from 1 to 4294967295",
            "leave the line out for auto; names of /etc/iproute2/rt_tables are not read, "
            "write the number",
        )
    return value


def keepalive(text: str) -> int:
    """Read seconds between keepalives; `off` is 0."""
    if text.lower() == "off":
        return 0
    if _DECIMAL.fullmatch(text) is None or int(text) > 65535:
        raise Mistake(
            "seconds from 1 to 65535, or off",
            "write 25 if the peer must reach you through NAT, else leave the line out",
        )
    return int(text)


def boolean(text: str) -> bool:
    """Read `true` or `false`."""
    lower = text.lower()
    if lower not in ("true", "false"):
        raise Mistake("true or false", "write one of the two")
    return lower == "true"


def switch(text: str) -> bool:
    """Read `on` or `off`."""
    lower = text.lower()
    if lower not in ("on", "off"):
        raise Mistake("on or off", "write one of the two; on is the default")
    return lower == "on"


def datapath(text: str) -> Datapath:
    """Read which pair of packet functions to use."""
    choices: dict[str, Datapath] = {"auto": "auto", "python": "python", "native": "native"}
    choice = choices.get(text.lower())
    if choice is None:
        raise Mistake("auto, python or native", "leave the line out for auto")
    return choice


def metrics(text: str) -> Metrics:
    """Read where metrics are served. A host name would need a resolver before the tunnel is up."""
    words: dict[str, Metrics] = {"unix": "unix", "off": "off"}
    word = words.get(text.lower())
    if word is not None:
        return word
    remedy = "leave the line out for unix; write an address as 127.0.0.1:9586 or [::1]:9586"
    try:
        found, _ = endpoint(text)
    except Mistake:
        raise Mistake("unix, off or ADDRESS:PORT", remedy) from None
    if found.address is None:
        raise Mistake("unix, off or ADDRESS:PORT, without host names", remedy)
    return found


def hook(text: str) -> str:
    """Read a shell command; anything goes that can be passed to a shell on one line."""
    if any(character < " " and character != "\t" for character in text):
        raise Mistake(
            "a shell command without control characters", "put it into a script and call that"
        )
    return text


def file_name(text: str) -> str:
    """Read the name of a key file."""
    if not text or not text.isprintable():
        raise Mistake(
            "the name of a file", "write the name of a file, relative to the folder of this one"
        )
    return text


_INTERFACE_REMEDY: Final = "write it as 10.0.0.1/24 or fd00::1/64"


def address(text: str) -> IPv4Interface | IPv6Interface:
    """Read an address of the interface with its prefix length (whole if there is none)."""
    host, prefix = _split_prefix(text, "an IPv4 or IPv6 address", _INTERFACE_REMEDY)
    if host.is_multicast or host.is_unspecified:
        raise Mistake(
            "an address that a host can have", _INTERFACE_REMEDY + ", with this host's own address"
        )
    if isinstance(host, IPv4Address):
        return IPv4Interface((int(host), prefix))
    return IPv6Interface((int(host), prefix))


def allowed_ip(text: str) -> tuple[AllowedIP, bool]:
    """Read an entry of AllowedIPs; the bool says whether host bits had to be cleared."""
    # Most entries are plain IPv4 networks; 100,000 of them should load in about a second.
    bare = text[1:] if text[:1] in ("+", "-") else text
    host, prefix = _split_prefix(
        bare, "an IPv4 or IPv6 network", "write it as 10.0.0.0/24 or fd00::/64, with commas between"
    )
    number = int(host)
    network: IPv4Network | IPv6Network
    if isinstance(host, IPv4Address):
        masked = number >> (32 - prefix) << (32 - prefix)
        network = IPv4Network((masked, prefix))
    else:
        masked = number >> (128 - prefix) << (128 - prefix)
        network = IPv6Network((masked, prefix))
    modifier: Literal["", "+", "-"] = "+" if text[:1] == "+" else "-" if text[:1] == "-" else ""
    return AllowedIP(network, modifier), masked != number


def dns_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address of a DNS server, or return None if the text is no address by its form."""
    if ":" not in text and re.fullmatch(r"[0-9.]*[0-9][0-9.]*", text) is None:
        return None
    found = _address(text)
    if found is None:
        raise Mistake(
            "the address of a DNS server, or a search domain", "write it as 10.0.0.53 or fd00::53"
        )
    return found


def search_domain(text: str) -> str:
    """Read a search domain; systemd-resolved's `~domain` and `~.` are domains too."""
    name = text.removeprefix("~").removesuffix(".")
    if text in (".", "~."):
        return text
    if len(name) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in name.split(".")):
        raise Mistake(
            "the address of a DNS server, or a search domain",
            "write it as 10.0.0.53, fd00::53 or corp.example; other scripts in their xn-- form",
        )
    return text


_ENDPOINT_EXPECTED: Final = "host:port"


def endpoint(text: str) -> tuple[EndpointConfig, bool]:
    """Read where a peer is reached; the bool says whether an IPv6 address lacked its brackets."""
    text = squeeze(text)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise Mistake(_ENDPOINT_EXPECTED, "write an IPv6 endpoint as [fd00::1]:51820")
        port = _endpoint_port(rest[1:])
        if _scoped_address(host) is None:
            raise Mistake(
                _ENDPOINT_EXPECTED, "between the brackets stands an IPv6 address, as [fd00::1]"
            )
        return EndpointConfig(host, port), False
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise Mistake(_ENDPOINT_EXPECTED, f"add the port, as in {_example(text)}:51820")
    if ":" in host:
        # `wg` takes what stands after the last colon as the port, brackets or not.
        if _scoped_address(host) is None:
            raise Mistake(_ENDPOINT_EXPECTED, "write an IPv6 endpoint as [fd00::1]:51820")
        return EndpointConfig(host, _endpoint_port(port_text)), True
    port = _endpoint_port(port_text)
    if re.fullmatch(r"[0-9.]+", host):
        if _address(host) is None:
            raise Mistake(
                _ENDPOINT_EXPECTED, "an IPv4 address has four numbers up to 255, as 192.0.2.1:51820"
            )
        return EndpointConfig(host, port), False
    name = host.removesuffix(".")
    if len(name) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in name.split(".")):
        raise Mistake(
            _ENDPOINT_EXPECTED,
            "a host name has letters, digits, '-' and '.'; write other scripts in their xn-- form",
        )
    return EndpointConfig(host, port), False


def _example(text: str) -> str:
    """Return the text as the host of an example, if it can be one."""
    usable = len(text) <= 40 and all(_HOST_LABEL.fullmatch(label) for label in text.split("."))
    return text if usable and quote(text).startswith('"') else "vpn.example.com"


def _endpoint_port(text: str) -> int:
    if _DECIMAL.fullmatch(text) is None or not 1 <= int(text) <= 65535:
        raise Mistake("host:port with a port from 1 to 65535", "WireGuard's usual port is 51820")
    return int(text)


def _scoped_address(text: str) -> IPv6Address | None:
    address, percent, scope = text.partition("%")
    if percent and _SCOPE.fullmatch(scope) is None:
        return None
    try:
        return IPv6Address(address)
    except AddressValueError:
        return None


def _address(text: str) -> IPv4Address | IPv6Address | None:
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


def _split_prefix(text: str, expected: str, remedy: str) -> tuple[IPv4Address | IPv6Address, int]:
    host_text, slash, prefix_text = text.partition("/")
    host = _address(host_text)
    if host is None:
        raise Mistake(expected, remedy)
    most = 32 if isinstance(host, IPv4Address) else 128
    prefix = _prefix(prefix_text, most) if slash else most
    if prefix is None:
        raise Mistake(f"a prefix length from 0 to {most} after the slash", remedy)
    return host, prefix


def network_text(version: int, address: int, length: int) -> str:
    """A network as text; much faster than by the module ipaddress."""
    if version == 4:
        text = socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
    else:
        text = socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))
    return f"{text}/{length}"
