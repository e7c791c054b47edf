"""Where a TUN device is and what it is called now, asked through its descriptor.

An interface can be renamed, or moved to another network namespace, after it was opened. Its
descriptor keeps working, but the questions "which index" and "which MTU" must be asked by a
socket in the namespace where the device is. All functions here may block for a moment.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import struct
from dataclasses import dataclass

from tunnel.io.errors import TunDeleted, TunError
from tunnel.linux import kernel, netns

logger = logging.getLogger("tunnel.io")

_IFREQ = struct.Struct("16s24x")
_IFREQ_SHORT = struct.Struct("16sh22x")
_IFREQ_MAC = struct.Struct("16sH6s16x")  # ARPHRD_ETHER and the address
_IFREQ_INT = struct.Struct("16si20x")


@dataclass(frozen=True, slots=True)
class TunLink:
    """The network interface of a TUN device as it was at one moment.

    `mtu` is in bytes of one packet. `here` says whether the device is in the network namespace
    of the calling thread; names and indices of another namespace mean nothing in this one. `netns`
    is the inode of that namespace, 0 if it is not known.
    """

    name: str
    ifindex: int
    mtu: int
    up: bool
    here: bool
    netns: int = 0


def name_and_flags(fd: int) -> tuple[str, int]:
    """Return the interface's present name and its IFF_ flags; raises TunDeleted, TunError."""
    try:
        answer = fcntl.ioctl(fd, kernel.TUNGETIFF, _IFREQ.pack(b""))
    except OSError as error:
        if error.errno == errno.EBADFD:
            raise TunDeleted("the TUN device was deleted") from error
        raise TunError(
            f"descriptor {fd} is not an attached TUN device ({error.strerror}); "
            "open /dev/net/tun and call TUNSETIFF before you pass it on"
        ) from error
    name, flags = _IFREQ_SHORT.unpack(answer)
    return name.rstrip(b"\0").decode(errors="surrogateescape"), flags & 0xFFFF


def query(fd: int, control: socket.socket | None = None) -> TunLink:
    """Return the state of the interface behind the TUN descriptor `fd`.

    `control` is a socket in the network namespace of the device, which then is not ours.

    Raises TunDeleted, or TunError where it is out of reach: moved into a namespace that we lack
    the privilege (CAP_NET_ADMIN, CAP_SYS_ADMIN) to enter.
    """
    name, _ = name_and_flags(fd)
    with contextlib.ExitStack() as stack:
        here, inode = False, 0
        if control is None:
            control, here, inode = _control_socket(fd)
            stack.enter_context(control)
        try:
            ifindex = _ask(control, kernel.SIOCGIFINDEX, name)
            mtu = _ask(control, kernel.SIOCGIFMTU, name)
            flags = _ask(control, kernel.SIOCGIFFLAGS, name)
        except OSError as error:
            raise TunError(f"cannot ask for the state of {name}: {error.strerror}") from error
    return TunLink(name, ifindex, mtu, bool(flags & kernel.IFF_UP), here, inode)


def namespace_of(fd: int) -> int:
    """An open descriptor of the network namespace that the device is in.

    Raises TunDeleted, or TunError where the kernel does not say.
    """
    try:
        return int(fcntl.ioctl(fd, kernel.TUNGETDEVNETNS))
    except OSError as error:
        if error.errno == errno.EBADFD:
            raise TunDeleted("the TUN device was deleted") from error
        raise TunError(f"cannot find the TUN device's network namespace: {error}") from error


def set_mtu(fd: int, mtu: int) -> None:
    """Set the interface's MTU in bytes; raises TunError naming the value, TunDeleted."""
    name, _ = name_and_flags(fd)
    control, *_ = _control_socket(fd)
    with control:
        try:
            request = _IFREQ_INT.pack(_encoded(name), mtu)
            fcntl.ioctl(control, kernel.SIOCSIFMTU, request)
        except (OSError, struct.error) as error:
            reason = error.strerror if isinstance(error, OSError) else "out of range"
            raise TunError(f"cannot set the MTU of {name} to {mtu}: {reason}") from error


def set_queue_length(fd: int, frames: int) -> None:
    """Set how many frames may wait to be read (txqueuelen); raises TunError, TunDeleted.

    In a user namespace of an ordinary user it stays as the kernel made it: this takes CAP_NET_ADMIN
    in the first one.
    """
    name, _ = name_and_flags(fd)
    control, *_ = _control_socket(fd)
    with control:
        try:
            fcntl.ioctl(control, kernel.SIOCSIFTXQLEN, _IFREQ_INT.pack(_encoded(name), frames))
        except PermissionError:
            logger.debug("%s keeps its txqueuelen, which only root may set", name)
        except OSError as error:
            raise TunError(f"cannot set the txqueuelen of {name}: {error.strerror}") from error


def set_mac(fd: int, mac: bytes) -> None:
    """Set the MAC address of a TAP device, 6 bytes; raises TunError, TunDeleted."""
    name, _ = name_and_flags(fd)
    control, *_ = _control_socket(fd)
    with control:
        try:
            fcntl.ioctl(control, kernel.SIOCSIFHWADDR, _IFREQ_MAC.pack(_encoded(name), 1, mac))
        except OSError as error:
            raise TunError(f"cannot set the MAC address of {name}: {error.strerror}") from error


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _ask(control: socket.socket, request: int, name: str) -> int:
    answer = fcntl.ioctl(control, request, _IFREQ.pack(_encoded(name)))
    layout = _IFREQ_SHORT if request == kernel.SIOCGIFFLAGS else _IFREQ_INT
    return int(layout.unpack(answer)[1])


def _control_socket(fd: int) -> tuple[socket.socket, bool, int]:
    """Open a socket in the namespace of the device; whether that is our own, and its inode."""
    try:
        namespace = fcntl.ioctl(fd, kernel.TUNGETDEVNETNS)
    except OSError as error:
        if error.errno == errno.EBADFD:
            raise TunDeleted("the TUN device was deleted") from error
        # Kernels before 5.2 and processes without CAP_NET_ADMIN cannot ask: suppose it is here.
        return _datagram_socket(), True, 0
    try:
        inode = os.fstat(namespace).st_ino
        if netns.is_ours(namespace):
            return _datagram_socket(), True, inode
        return netns.call_inside(namespace, _datagram_socket), False, inode
    except OSError as error:
        raise TunError(
            f"cannot enter the device's network namespace: {error.strerror}; "
            "this needs CAP_SYS_ADMIN"
        ) from error
    finally:
        os.close(namespace)


def _datagram_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise TunError(f"cannot ask for the state of the TUN device: {error.strerror}") from error
