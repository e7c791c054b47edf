"""docs/convert.md, made from the formats: python -m tunnel.convert.reference > docs/convert.md."""

import sys
from collections.abc import Iterator

from tunnel.config.keys import keys_of
from tunnel.config.model import InterfaceConfig, PeerConfig, TunnelOptions
from tunnel.convert import FORMATS

__all__ = ["page"]

_HEAD = """\
# Confs of other programs

`tunnel import` makes a conf from the configuration of another program, and `tunnel export` makes
one for another program. Both list on standard error what they cannot convert, with its place:

```sh
cd /etc/systemd/network; tunnel import wg0.netdev wg0.network   # writes /etc/tunnel/wg0.conf
tunnel import router.rsc --interface wireguard1 --name office   # one of several in a file
tunnel export office --to networkmanager -o office.nmconnection
tunnel export office --to routeros -o office.rsc                # there: /import office.rsc
```

- The format is recognised by the content, or given with `--from`. `-` is standard input, and
  `-o -` prints. No file is overwritten. A file with a key has mode 0600 from the start.
- An import takes the files of one tunnel, in one format, and refuses a file that it would not use.
- Hooks (`PostUp` and the like) are shell commands that the tunnel runs as root. An import lists
  those of the new conf on standard error: read them before `tunnel up`.
- Values are checked like those of any conf. An error names the line of the other program's file,
  and nothing is written.
- Comments are not converted, except for the names of peers. Disabled peers, which a conf has as
  comments, are left out, too.
- With `--strict`, the command fails and writes nothing if anything cannot be converted. `--json`
  prints the list for programs: `not_carried`, each with `place`, `what` and `why`.
- If the private key is not in the file, give it with `--private-key-file FILE`. This is the case
  where a secret agent of NetworkManager has it, or after RouterOS's `/export` without
  `show-sensitive`.

`tests/unit/convert/golden` has examples of each format and their results.
"""

_ROUTES = """\
## Routes

With `Table = auto`, a conf adds a route for each of the AllowedIPs, and for a /0 routing rules that
keep the tunnel's own datagrams out of it. Other programs add the routes that are written down.
An import compares these with the AllowedIPs. If they are the same, the conf needs no `Table`, or
`Table = NUMBER`; if there are none, it gets `Table = off`. Any other routes become commands
(`PostUp = ip route add …`) with `Table = off`.

An export writes the routes in the form of the other program. For a /0, NetworkManager adds the
rules of `auto` itself; for systemd-networkd they are written: a mark, a table and two
`[RoutingPolicyRule]` sections for each IP version. OpenWrt adds a host route to the endpoint.
RouterOS and VyOS do neither, so a default route into the tunnel is not written but listed, with
the command that adds it.

The name servers in `DNS` are asked for every name, as with wg-quick. For that NetworkManager and
systemd-networkd get the domain `~.`; an import drops it.
"""

_READ = """\
## What an import reads

- **NetworkManager**: a keyfile from /etc/NetworkManager/system-connections. A preshared key without
  `preshared-key-flags=0` is not converted, because NetworkManager does not use it either.
- **systemd-networkd**: the .netdev and the .network file together; also drop-ins, if you name them.
- **OpenWrt**: /etc/config/network, or the output of `uci export network`.
- **RouterOS** 7: the output of `/export show-sensitive`, or commands as you type them.
- **VyOS** 1.2 and later: the output of `show configuration commands`.
- **wg-quick**: the text stays as it is. Keys of other apps, such as AmneziaWG, become comments.
"""


def page() -> str:
    """The text of docs/convert.md."""
    return "\n".join([_HEAD, *_table(), _ROUTES, _READ]).rstrip("\n") + "\n"


def _table() -> Iterator[str]:
    yield "## What is carried\n"
    yield (
        "This table is made from `tunnel/convert` by `python -m tunnel.convert.reference`. A key"
        "\nwith an empty cell is listed as not carried.\n"
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
