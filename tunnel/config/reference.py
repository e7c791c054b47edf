"""docs/conf.md, made from the table of keys: python -m tunnel.config.reference > docs/conf.md."""

import sys
from collections.abc import Iterator

from tunnel.config.keys import ConfKey, keys_of
from tunnel.config.model import SECTIONS

__all__ = ["page"]

_HEAD = """\
# The keys of a conf

Made from the table in `tunnel/config/model.py` by `python -m tunnel.config.reference`.

The format is wg-quick's: `Key = value` under a section. Sections and keys know no upper and lower
case; `#` starts a comment, except in the shell commands of `PreUp`, `PostUp`, `PreDown` and
`PostDown`. A *list* is separated by commas and may be spread over several lines of its key; shell
commands run in the order of their lines. Of any other key the last line counts, with a warning.
`[Interface]` and `[Tunnel]` may appear again; every `[Peer]` is a peer of its own.

`[Tunnel]`, `PrivateKeyFile`, `PresharedKeyFile`, `RateLimit` and `Quota` ([more](limits.md)) are
ours. In a conf that stock wg-quick reads too, write keys of `[Tunnel]` as comments anywhere:
`#! tunnel: Datapath = python`.

Two comments in a section `[Peer]` have a meaning: `# friendly_name = laptop` is the name under
which the peer is shown, and at the time in `# expires = 2026-12-31T23:59:59Z` the daemon removes
the peer from the running tunnel. `tunnel peer` writes both.

*Reload* is what `tunnel reload` does about a changed value.
"""

_TITLES = {
    "Interface": "## [Interface]: this host",
    "Peer": "## [Peer]: one for each peer",
    "Tunnel": "## [Tunnel]: options of our own",
}


def page() -> str:
    """The text of docs/conf.md."""
    return "\n".join([_HEAD, *_tables()])


def _tables() -> Iterator[str]:
    for title, section in SECTIONS.items():
        yield f"{_TITLES[title]}\n"
        yield "| key | meaning | default | reload | example |\n| --- | --- | --- | --- | --- |"
        for key in keys_of(section).values():
            repeated = " (list)" if key.split is not None else ""
            cells = [f"`{key.name}`{repeated}", key.meaning, _default(key), key.reload.value]
            # A secret in a manual would be copied.
            cells.append("make your own" if key.file else f"`{key.example}`")
            yield f"| {' | '.join(cells)} |"
        yield ""


def _default(key: ConfKey) -> str:
    if key.required:
        return "required"
    return "none" if key.default in (None, ()) else f"`{key.write(key.default)}`"


if __name__ == "__main__":
    sys.stdout.write(page())
