"""docs/convert.md, made from the formats: python -m tunnel.convert.reference > docs/convert.md."""

import sys
from collections.abc import Iterator

from tunnel.config.keys import keys_of
from tunnel.config.model import InterfaceConfig, PeerConfig, TunnelOptions
from tunnel.convert import FORMATS

__all__ = ["page"]

_HEAD = """\
# Confs of other programs

`tunnel import` makes a conf of what another program is configured with, and `tunnel export` writes
a conf for another program. Both list what they do not carry on standard error, each with its place:

```sh
cd /etc/systemd/network; tunnel import wg0.netdev wg0.network   # writes /etc/tunnel/wg0.conf
tunnel import router.rsc --interface wireguard1 --name office   # of a file with several tunnels
tunnel export office --to networkmanager -o office.nmconnection
tunnel export office --to routeros | ssh admin@router
```

- The format is recognised by the content; `--from` names it. `-` is standard input, and `-o -`
  prints. No file is overwritten. A conf, and each file with a key, has mode 0600 from the start.
- Values are checked as those of any conf; an error names the line of the foreign file, and nothing
  is written.
- Comments are not carried, but for the names of peers; disabled peers of a conf are comments.
- `--strict` fails, and writes nothing, if something is not carried. `--json` prints the list for
  programs, as `not_carried`, with `place`, `what` and `why` of each.
- A private key that is not in the file, as with an agent of NetworkManager or an `/export` of
  RouterOS without `show-sensitive`, can be given by `--private-key-file FILE`.

`tests/unit/convert/golden` has examples of each format, and what becomes of them.
"""

_ROUTES = """\
## Routes

With `Table = auto` a conf makes a route to each of AllowedIPs, and rules for a /0, so that the
tunnel's own packets go past it. Other programs make those routes that are written down. An import
compares them: if they are the AllowedIPs, the conf says nothing, or `Table = NUMBER`; if there are
none, `Table = off`. Others become commands (`PostUp = ip route add …`), after `Table = off`.

An export writes the routes as the other program wants them. For a /0, NetworkManager makes the
rules of `auto` itself, and systemd-networkd is given them: a mark, a table and two
`[RoutingPolicyRule]` for each IP version. OpenWrt makes a host route to the endpoint. RouterOS and
VyOS do neither: there a default route into the tunnel is not written but listed, with the command.

`DNS` of a conf is asked for every name, as with wg-quick. NetworkManager and systemd-networkd get
the domain `~.` for that, and an import takes `~.` for granted.
"""

_READ = """\
## What an import reads

- **NetworkManager**: a keyfile of /etc/NetworkManager/system-connections. A preshared key without
  `preshared-key-flags=0` is not carried, because NetworkManager does not use it either.
- **systemd-networkd**: the .netdev and the .network together, with drop-ins if they are named, too.
- **OpenWrt**: /etc/config/network, or the output of `uci export network`.
- **RouterOS**: the output of `/export show-sensitive`, or commands as they are typed; version 7.
- **VyOS**: the output of `show configuration commands`; `set` commands of 1.2 and later.
- **wg-quick**: the text stays as it is. Keys of apps, such as those of AmneziaWG, become comments.
"""


def page() -> str:
    """The text of docs/convert.md."""
    return "\n".join([_HEAD, *_table(), _ROUTES, _READ]).rstrip("\n") + "\n"


def _table() -> Iterator[str]:
    yield "## What is carried\n"
    yield (
        "Made from the formats in `tunnel/convert` by `python -m tunnel.convert.reference`. Where a"
        "\ncell is empty, the key is listed as not carried.\n"
    )
    yield f"| key | {' | '.join(form.name for form in FORMATS.values())} |"
    yield f"| --- |{' --- |' * len(FORMATS)}"
    names = [key.name for key in keys_of(InterfaceConfig).values() if not key.is_file]
    names += [key.name for key in keys_of(PeerConfig).values() if not key.is_file]
    carried = {name for form in FORMATS.values() for name in form.keys}
    options = [key.name for key in keys_of(TunnelOptions).values()]
    names += ["# friendly_name", "# expires", *(name for name in options if name in carried)]
    for name in names:
        words = (form.keys.get(name, "") for form in FORMATS.values())
        cells = (word if word == "the same" or not word else f"`{word}`" for word in words)
        yield f"| `{name}` | {' | '.join(cells)} |"
    yield "| all other keys of `[Tunnel]` |" + " |" * len(FORMATS)
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
