"""`tunnel pair --install`: this very program, put into /opt/tunnel on a host that lacks it.

What is installed here is made into wheels again, the program and all that it needs, so that the
other host needs no network, if its Python and its machine fit. Else pip there gets what does not
fit from the package index that is set there.
"""

from __future__ import annotations

import base64
import hashlib
import io
import platform
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Final

import tunnel
from tunnel.pair.messages import PairError
from tunnel.pair.ssh import Remote, Ssh

FOLDER: Final = "/opt/tunnel"

_DISTRIBUTION: Final = "tunnel-vpn"
_PACKAGES: Final = ("crypto", "tunnel")
_NATIVE: Final = "tunnel/datapath/_native"
_STAND_IN: Final = '''"""In the place of the compiled datapath, which is for another machine."""

raise ImportError("tunnel pair installed it from a machine of another kind ({machine})")
'''
_SOURCES: Final = "tunnel/datapath/native/"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# Prints one line with what is wrong, and leaves nothing behind then.
_CHECK: Final = """
exec 3>&2 2>/dev/null
fail() { echo "$1" >&3; exit 1; }
[ -e /dev/net/tun ] || fail "there is no /dev/net/tun: load the module tun (modprobe tun)"
[ ! -e FOLDER ] || fail "FOLDER exists already, but has no bin/tunnel: rename it"
python3 -c "import sys; sys.exit(sys.version_info < (3, 11))" ||
    fail "Python 3.11 or newer is needed, and there is $(python3 --version || echo none)"
python3 -c "import ensurepip, venv" ||
    fail "venv is missing: Debian has it in the package python3-venv"
"""
_INSTALL: Final = (
    _CHECK
    + """
umask 022
mkdir FOLDER || fail "FOLDER cannot be made: is the disk full?"
trap 'rm -rf "$work"; [ -n "$done" ] || rm -rf FOLDER' EXIT
trap 'exit 1' HUP INT TERM
work=$(mktemp -d) || fail "no room for temporary files"
python3 -c "if True:
    import sys, tarfile
    tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('$work')
" || fail "the files did not arrive whole"
python3 -m venv FOLDER || fail "python3 -m venv FOLDER does not work: is the disk full?"
pip="FOLDER/bin/pip -q --disable-pip-version-check --no-input"
logged() { "$@" >"$work/log" 2>&1; }
if logged $pip install --no-index --find-links="$work" "$work"/tunnel_vpn-*.whl
then :
elif logged $pip install --find-links="$work" "$work"/tunnel_vpn-*.whl
then :
else fail "pip: $(grep -i error "$work/log" | tail -n 1)"
fi
FOLDER/bin/tunnel --version >/dev/null || fail "what was installed does not run"
done=1
"""
)


def check(ssh: Ssh, remote: Remote) -> None:
    """Raise PairError if the program cannot be installed there. Changes nothing."""
    ssh.output(remote.as_root(["sh", "-c", _CHECK.replace("FOLDER", FOLDER)]))


def install(ssh: Ssh, remote: Remote) -> str:
    """Install it there; the path of the command. Raises PairError, and then it is not there."""
    with tempfile.TemporaryFile() as archive:
        _pack(wheels(remote.machine), archive)
        archive.seek(0)
        script = _INSTALL.replace("FOLDER", FOLDER)
        ssh.output(remote.as_root(["sh", "-c", script]), stdin=archive)
    return f"{FOLDER}/bin/tunnel"


def _pack(files: Iterable[tuple[str, bytes]], to: IO[bytes]) -> None:
    with tarfile.open(fileobj=to, mode="w") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def wheels(machine: str) -> Iterator[tuple[str, bytes]]:
    """Wheels of this program and of all that it needs, each with its file name.

    The program's own one is fit for `machine`, as `uname -m` has it. Raises PairError.
    """
    for name in sorted(_needed()):
        found = metadata.distribution(name)
        text = found.read_text("WHEEL") or ""
        if name == _DISTRIBUTION:
            yield _own_wheel(found, machine)
        elif tags := re.findall(r"(?m)^Tag: (\S+)", text):
            yield _wheel(found, _compressed(tags), _installed_files(found), text)


def _needed() -> set[str]:
    """The distributions that this program needs, with itself, as far as they are installed."""
    found: set[str] = set()
    waiting = [_DISTRIBUTION]
    while waiting:
        name = waiting.pop()
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            if name == _DISTRIBUTION:
                raise PairError(
                    "this program has no metadata, and cannot be installed elsewhere"
                ) from None
            continue
        found.add(name)
        for text in requires:
            match = _NAME.match(text)
            if match and "extra ==" not in text and _canonical(match[0]) not in found:
                waiting.append(_canonical(match[0]))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _compressed(tags: Iterable[str]) -> str:
    """Tags in one, as a file name has them: each part with all that it may be."""
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)


def _installed_files(found: metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    """The files that belong into its wheel: none of pip's, no script, nothing outside."""
    left_out = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "WHEEL")
    for path in found.files or ():
        name = path.as_posix()
        in_metadata = ".dist-info/" in name and path.name in left_out
        if not (name.startswith(("..", "/")) or "__pycache__" in path.parts or in_metadata):
            yield name, Path(str(path.locate())).read_bytes()


def _own_wheel(found: metadata.Distribution, machine: str) -> tuple[str, bytes]:
    """From the modules themselves: where they are used from their sources, no list names them."""
    top = Path(tunnel.__file__).parents[1]
    files = {
        name: path.read_bytes()
        for package in _PACKAGES
        for path in sorted((top / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
        if not (name := path.relative_to(top).as_posix()).startswith(_SOURCES)
    }
    compiled = [name for name in files if name.startswith(f"{_NATIVE}.") and name.endswith(".so")]
    tag = f"cp311-abi3-linux_{machine}" if compiled else "py3-none-any"
    if compiled and machine != platform.machine():
        for name in compiled:
            del files[name]
        stand_in = _STAND_IN.format(machine=platform.machine())
        files[f"{_NATIVE}.py"] = stand_in.encode()
        tag = "py3-none-any"
    base = _base(found)
    # PKG-INFO: the same in a source folder in which a wheel was built.
    described = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    files[f"{base}.dist-info/METADATA"] = described.encode()
    files[f"{base}.dist-info/entry_points.txt"] = (
        found.read_text("entry_points.txt") or ""
    ).encode()
    pure = str(tag == "py3-none-any").lower()
    text = f"Wheel-Version: 1.0\nGenerator: tunnel-pair\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    return _wheel(found, tag, files.items(), text)


def _base(found: metadata.Distribution) -> str:
    return f"{_canonical(found.metadata['Name']).replace('-', '_')}-{found.version}"


def _wheel(
    found: metadata.Distribution, tag: str, files: Iterable[tuple[str, bytes]], text: str
) -> tuple[str, bytes]:
    """A wheel of these files; `text` is its file WHEEL."""
    made = io.BytesIO()
    base = _base(found)
    record = []
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in (*files, (f"{base}.dist-info/WHEEL", text.encode())):
            # The folder of metadata, which others may spell in another way than we do.
            name = re.sub(r"^[^/]+\.dist-info/", f"{base}.dist-info/", path)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")
            archive.writestr(name, data)
        record.append(f"{base}.dist-info/RECORD,,")
        archive.writestr(f"{base}.dist-info/RECORD", "\n".join(record) + "\n")
    return f"{base}-{tag}.whl", made.getvalue()
