"""What the commands in a conf's hooks do to forwarding, by their program and its target."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath

from tunnel.host.docker import DOCKER_USER

VERSIONS = {"ip": frozenset({4}), "ip6": frozenset({6})}
"""IP versions of nft's families; every other family has both."""
BOTH = frozenset({4, 6})

_PROGRAMS = {
    f"{program}{variant}": versions
    for program, versions in (("iptables", VERSIONS["ip"]), ("ip6tables", VERSIONS["ip6"]))
    for variant in ("", "-nft", "-legacy")
}
_SYSCTLS = {"net.ipv4.ip_forward=1": VERSIONS["ip"], "net.ipv6.conf.all.forwarding=1": {6}}
_TRANSLATIONS = frozenset({"masquerade", "snat"})


def forwards(hook: str) -> Iterator[frozenset[int]]:
    """For each command of a hook that prepares forwarding, the IP versions that it is for."""
    for words in _commands(hook):
        program = PurePath(words[0]).name
        if program in _PROGRAMS:
            if _iptables_forwards(words):
                yield _PROGRAMS[program]
        elif program == "nft":
            # Its rules are often one quoted word.
            words = " ".join(words).split()
            if "delete" not in words and (translates(words) or _nft_forwards(words)):
                family = next((w for w in words if w in ("ip", "ip6", "inet")), "ip")
                yield versions_of(family, " ".join(words))
        elif program == "sysctl":
            text = "".join(words)
            yield from (frozenset(found) for name, found in _SYSCTLS.items() if name in text)


def versions_of(family: str, text: str) -> frozenset[int]:
    """The IP versions that a rule of nft can be for, by its family and by what it asks for."""
    if family in VERSIONS:
        return VERSIONS[family]
    if "ip saddr" in text or "ip daddr" in text:
        return VERSIONS["ip"]
    if "ip6 saddr" in text or "ip6 daddr" in text:
        return VERSIONS["ip6"]
    return BOTH


def translates(words: Sequence[str]) -> bool:
    """Whether a rule of nft gives forwarded packets another source."""
    return not _TRANSLATIONS.isdisjoint(words)


def _nft_forwards(words: Sequence[str]) -> bool:
    return "accept" in words and any("forward" in word.lower() for word in words)


def _iptables_forwards(words: Sequence[str]) -> bool:
    target = _value(words, "-j", "--jump")
    if target in ("MASQUERADE", "SNAT"):
        return _value(words, "-A", "-I", "--append", "--insert") is not None
    chain = _value(words, "-A", "-I", "--append", "--insert") or ""
    return target == "ACCEPT" and ("FORWARD" in chain or chain == DOCKER_USER)


def _value(words: Sequence[str], *options: str) -> str | None:
    """The word behind one of the options."""
    for word, following in pairwise(words):
        if word in options:
            return following
    return None


def _commands(hook: str) -> Iterator[list[str]]:
    """The simple commands of a line of shell, as words. What cannot be read has none."""
    lexer = shlex.shlex(hook, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for token in [*lexer, ";"]:
            if token.strip("();<>|&"):
                if words or (token != "sudo" and "=" not in token):
                    words.append(token)
                continue
            if words:
                yield words
            words = []
    except ValueError:
        return
