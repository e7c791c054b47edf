"""Commands of this checkout as an ordinary user, in a mount namespace that can be prepared."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunnel.lab import Host

ROOT = Path(__file__).parents[2]
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

OPEN_TUN = """
[ -e "$dir/tun" ] || mknod "$dir/tun" c 10 200
chmod {mode} "$dir/tun"
mount --bind "$dir/tun" /dev/net/tun
"""
"""Shows a device of that mode at /dev/net/tun; the machine's own stays as it is."""

# The interpreter and this checkout may lie in a home that only its owner may enter: give this
# namespace its own view of them. Nothing of the machine's own is changed.
_SCRIPT = """
set -e
stash=$(mktemp -d -p "$dir")
for path in "$base" "$root" "$venv"; do
    mkdir -p "$stash$path"
    mount --bind "$path" "$stash$path"
done
for top in /root /home; do
    case "$base:$root:$venv" in
    *$top/*) mount -t tmpfs -o mode=755 tmpfs $top ;;
    esac
done
for path in "$base" "$root" "$venv"; do
    [ -d "$path" ] && [ -n "$(ls -A "$path")" ] || {
        mkdir -p "$path"
        mount --bind "$stash$path" "$path"
    }
done
"""


@dataclass(frozen=True)
class OrdinaryUser:
    """nobody. Files of theirs are in `directory`, which every user may write."""

    directory: Path

    def command(self, arguments: Sequence[str], *, prepare: str = ":") -> list[str]:
        """The words that run a program as this user, for root.

        `prepare` is shell that runs as root first, in the private mount namespace.
        """
        script = f'{_SCRIPT}\n{prepare}\ncd "$root"\nexec {" ".join(AS_NOBODY)} "$@"'
        entered = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        return [*entered, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """What `command` needs in its environment."""
        return {
            "base": str(Path(sys.base_prefix).resolve()),
            "root": str(ROOT),
            "venv": sys.prefix,
            "dir": str(self.directory),
            "TMPDIR": str(self.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def let_all_enter(host: Host) -> None:
    """Let every user of the host run this checkout's commands, where they cannot."""
    program = Path(sys.executable).with_name("tunnel")
    if host.run([*AS_NOBODY, str(program), "--version"], check=False).returncode:
        host.run(["sh", "-c", _SCRIPT], environment=OrdinaryUser(Path("/run")).environment)


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """One, for the time of a `with`."""
    # pytest's own directories are closed to others.
    directory = Path(tempfile.mkdtemp(prefix="tunnel-test-"))
    directory.chmod(0o1777)
    try:
        yield OrdinaryUser(directory)
    finally:
        shutil.rmtree(directory)
