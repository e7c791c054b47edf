"""The TUN (or TAP) device: opened with pytun-pmd3, then driven by its descriptor.

Every read and write is one *frame*: a 10-byte virtio_net_hdr and one IP packet (with TAP, one
Ethernet frame) of up to 64 KiB. With offloads on, a frame may be a TCP or UDP super-packet that
the header describes (GSO), and its checksum may be left to us (NEEDS_CSUM).
Source: Linux Documentation/networking/tuntap.rst, drivers/net/tun.c; virtio 1.2, section 5.1.6.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Iterator
from enum import IntFlag
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import trio
from pytun_pmd3 import TunTapDevice

from tunnel.io import link
from tunnel.io.drops import TUN_WRITE_REASONS, IoDrop
from tunnel.io.errors import TunDeleted, TunError, TunMergeRefused, TunWriteDropped
from tunnel.io.link import TunLink
from tunnel.linux import kernel
from tunnel.linux.netns import call_inside

logger = logging.getLogger("tunnel.io")

Readable: TypeAlias = bytes | bytearray | memoryview
Writable: TypeAlias = bytearray | memoryview

VNET_HDR_LEN = 10
_GSO_TYPE = 1  # the second byte of struct virtio_net_hdr
READ_SIZE = 65_536 + 64
"""Room in bytes that `Tun.read` wants: header, link layer and the largest packet."""

_READ_TRIES = 16
"""Frames that the kernel refuses to hand over, one after the other, before others get a turn."""

# Without the look into the module, for each frame.
_readv, _writev = os.readv, os.writev

QUEUE_LENGTH: Final = 3000
"""Frames that may wait to be read from a device of our making, its txqueuelen.

The kernel's 500 small packets are there in 3 ms of a flood: it drops what comes while another
process has the processor, or a handshake is computed. This is 20 ms of 150,000 packets per second.
"""

_DEVICE = "/dev/net/tun"
_NO_OFFLOAD_HEADER = bytes(VNET_HDR_LEN)


class TunOffload(IntFlag):
    """What the kernel may leave to us on frames that we read (TUN_F_ flags of if_tun.h)."""

    NONE = 0
    CSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04
    TSO_ECN = 0x08
    USO4 = 0x20
    USO6 = 0x40


TSO = TunOffload.TSO4 | TunOffload.TSO6
USO = TunOffload.USO4 | TunOffload.USO6
ALL_OFFLOADS = TunOffload.CSUM | TSO | USO


class Tun:
    """An open TUN device. Make one with `Tun.open` or `Tun.adopt`; close it, or use `with`.

    `offloads` is what the kernel granted of what was asked. `drops` counts refused frames.
    `vnet_hdr` is False only for an adopted descriptor that was opened without IFF_VNET_HDR; the
    header is then supplied on read and taken off on write, and `offloads` is NONE.
    """

    def __init__(
        self,
        fd: int,
        *,
        device: TunTapDevice | None = None,
        offloads: TunOffload = ALL_OFFLOADS,
        control: socket.socket | None = None,
    ) -> None:
        self._control = control
        self._wanted = offloads
        self._mac: bytes | None = None
        # The library's object closes the descriptor when it is collected: keep it as long as us.
        self._device = device
        self._fd = fd
        self._write_lock = trio.Lock()
        self.drops: Counter[IoDrop] = Counter()
        name, flags = link.name_and_flags(fd)
        # With a control socket the device is elsewhere, and one of that name here another.
        if device is None and control is None and _has_protocol_information(name):
            raise TunError(
                f"the TUN device on descriptor {fd} prefixes packets with protocol information; "
                "open it with IFF_NO_PI"
            )
        self.tap = bool(flags & kernel.IFF_TAP)
        self.vnet_hdr = bool(flags & kernel.IFF_VNET_HDR)
        self.offloads = TunOffload.NONE
        os.set_blocking(fd, False)
        if self.vnet_hdr:
            fcntl.ioctl(fd, kernel.TUNSETVNETHDRSZ, VNET_HDR_LEN.to_bytes(4, sys.byteorder))
            self.offloads = _set_offloads(fd, offloads)
        elif offloads:
            logger.warning("the TUN device was handed over without IFF_VNET_HDR: no offloads")

    @classmethod
    def open(
        cls,
        name: str,
        *,
        mtu: int | None = None,
        offloads: TunOffload = ALL_OFFLOADS,
        mac: bytes | None = None,
    ) -> Self:
        """Create the interface `name` (or `name%d`, the kernel picks the number), still down.

        With a `mac` of 6 bytes it is a TAP device with that address. It vanishes when the object is
        closed. Raises TunError, with the remedy, also when an interface of that name exists.
        """
        if not name or len(os.fsencode(name)) >= kernel.IFNAMSIZ:
            raise TunError(f"{name!r} is not an interface name, which has 1 to 15 bytes")
        kind = kernel.IFF_TUN if mac is None else kernel.IFF_TAP
        # Without IFF_TUN_EXCL an existing persistent device would be joined silently.
        flags = kind | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR | kernel.IFF_TUN_EXCL
        device = _open_device(name, flags)
        try:
            tun = cls(device.fileno(), device=device, offloads=offloads)
            link.set_queue_length(tun.fileno(), QUEUE_LENGTH)
            if mac is not None:
                link.set_mac(tun.fileno(), mac)
                tun._mac = mac
            if mtu is not None:
                link.set_mtu(tun.fileno(), mtu)
        except BaseException as error:
            device.close()
            if isinstance(error, OSError):
                raise TunError(_why_not_opened(name, error)) from error
            raise
        return tun

    @classmethod
    def adopt(
        cls,
        fd: int,
        *,
        offloads: TunOffload = ALL_OFFLOADS,
        control: socket.socket | None = None,
        mac: bytes | None = None,
    ) -> Self:
        """Take over an attached TUN descriptor (WG_TUN_FD); it is ours to close from now on.

        So is `control`, a socket in the network namespace of the device, for one that we may not
        enter. `mac` is what a TAP device gets when it has to be made again. Raises TunError if
        `fd` is no such thing, and then leaves both to the caller.
        """
        try:
            tun = cls(fd, offloads=offloads, control=control)
            tun._mac = mac
            os.set_inheritable(fd, False)
        except TunDeleted as error:
            raise TunError(
                f"descriptor {fd} is a TUN device without an interface: call TUNSETIFF "
                "before you pass it on, and keep the interface"
            ) from error
        except OSError as error:
            raise TunError(f"cannot use descriptor {fd} as a TUN device: {error}") from error
        return tun

    def renew(self, name: str, mtu: int, namespace: Path | str) -> None:
        """Make the deleted device again, in the network namespace at that path, and still down.

        No task may be waiting for it. Blocks. Raises TunError.
        """
        kind = kernel.IFF_TAP if self.tap else kernel.IFF_TUN
        flags = kind | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR | kernel.IFF_TUN_EXCL

        def make() -> TunTapDevice:
            device = _open_device(name, flags)
            try:
                link.set_queue_length(device.fileno(), QUEUE_LENGTH)
                if self._mac is not None:
                    link.set_mac(device.fileno(), self._mac)
                link.set_mtu(device.fileno(), mtu)
            except BaseException:
                device.close()
                raise
            return device

        device = call_inside(namespace, make)
        if self._device is not None:
            self._device.close()
        self._device, self._fd = device, device.fileno()
        os.set_blocking(self._fd, False)
        fcntl.ioctl(self._fd, kernel.TUNSETVNETHDRSZ, VNET_HDR_LEN.to_bytes(4, sys.byteorder))
        self.offloads = _set_offloads(self._fd, self._wanted)

    @contextlib.contextmanager
    def namespace(self) -> Iterator[Path]:
        """A path of the network namespace that it is in, good for this process in the body.

        Raises TunDeleted, TunError.
        """
        descriptor = link.namespace_of(self._fd)
        try:
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def read(self, buffer: Writable, start: int = 0) -> int:
        """Read one frame into `buffer[start:]`, which must have room for READ_SIZE bytes.

        Returns its length in bytes with the header, or 0 when there is none to read now. A frame
        that the kernel had and could not hand over is counted in `drops`, and the next one read.
        Raises TunDeleted, and ValueError when the room is too small (a frame would be cut
        silently).
        """
        if len(buffer) - start < READ_SIZE:
            raise ValueError(f"a frame needs room for {READ_SIZE} bytes, not {len(buffer) - start}")
        skip = 0
        if not self.vnet_hdr:
            skip = VNET_HDR_LEN
            buffer[start : start + skip] = _NO_OFFLOAD_HEADER
        for _ in range(_READ_TRIES):
            try:
                return _readv(self._fd, (memoryview(buffer)[start + skip :],)) + skip
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno == errno.EIO:
                    return 0
                self.handle_read_error(error)
        return 0

    def handle_read_error(self, error: OSError) -> None:
        """Count the frame that a read failed on; others may follow.

        Raises TunDeleted, and `error` itself if it is about no frame.
        """
        # EFAULT is what a reader gets that was under way while the device went.
        if error.errno in (errno.EBADFD, errno.EFAULT):
            raise TunDeleted("the TUN device was deleted") from error
        if error.errno != errno.EINVAL:
            raise error
        # A GSO packet that has no virtio header of its own kind (an SCTP one, or one that was
        # forwarded from a device with other offloads). The kernel has dropped it.
        self.drops[IoDrop.TUN_READ_REFUSED] += 1

    def write(self, frame: Readable) -> bool:
        """Write one frame, header first, in one call.

        True: the kernel took it. False: the device is busy; the frame is not lost, await
        `wait_writable` and write it again. Raises TunWriteDropped when this frame was refused
        (counted in `drops`), TunMergeRefused when it holds several packets, and TunDeleted.
        """
        if not self.vnet_hdr:
            view = memoryview(frame)
            if view[:VNET_HDR_LEN] != _NO_OFFLOAD_HEADER:
                # Without the header there is no way to say what is left to do.
                raise self._dropped(errno.EINVAL)
            frame = view[VNET_HDR_LEN:]
        try:
            _writev(self._fd, (frame,))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EBADFD:
                raise TunDeleted("the TUN device was deleted") from error
            if error.errno == errno.EBADF:
                raise
            if error.errno == errno.EINVAL and self.vnet_hdr and frame[_GSO_TYPE]:
                raise TunMergeRefused("the TUN device refused merged packets") from error
            raise self._dropped(error.errno) from error
        return True

    def wait_readable(self) -> Awaitable[None]:
        """Wait until a read may succeed; also returns when the device was deleted."""
        # trio's own coroutine: one of ours around it is a cost of every wake-up.
        return trio.lowlevel.wait_readable(self._fd)

    async def wait_writable(self) -> None:
        """Wait until a write may succeed; with the interface down, until it is up."""
        # More than one task writes; trio lets only one of them wait on a descriptor.
        async with self._write_lock:
            await trio.lowlevel.wait_writable(self._fd)

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close`."""
        return self._fd

    @property
    def name(self) -> str:
        """The interface's name now, also after a rename; raises TunDeleted."""
        return link.name_and_flags(self._fd)[0]

    @property
    def ifindex(self) -> int:
        """The interface's index in the namespace where it is; may block, see `link`."""
        return self.link().ifindex

    def link(self) -> TunLink:
        """Return name, index, MTU and state as they are now, wherever the device was moved.

        May block for some 100 µs when the device is in another namespace. Raises TunDeleted, also
        after `close`, and TunError.
        """
        if self._fd < 0:
            raise TunDeleted("the TUN device is closed")
        return link.query(self._fd, self._control)

    def close(self) -> None:
        """Close the descriptor, with which a device of our making vanishes; idempotent.

        Tasks in `wait_readable` and `wait_writable` end with trio.ClosedResourceError.
        """
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        # Outside of trio (RuntimeError) no task can be waiting.
        with contextlib.suppress(RuntimeError):
            trio.lowlevel.notify_closing(fd)
        if self._device is not None:
            self._device.close()
        else:
            os.close(fd)
        if self._control is not None:
            self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _dropped(self, number: int | None) -> TunWriteDropped:
        reason = TUN_WRITE_REASONS.get(number or 0, IoDrop.TUN_ERROR)
        self.drops[reason] += 1
        return TunWriteDropped(reason)


def _open_device(name: str, flags: int) -> TunTapDevice:
    try:
        return TunTapDevice(name, flags=flags)
    except OSError as error:
        raise TunError(_why_not_opened(name, error)) from error


def _set_offloads(fd: int, wanted: TunOffload) -> TunOffload:
    """Ask for less and less until the kernel agrees: USO came with 6.2, TSO6 needs CSUM, …"""
    ladder = (wanted, wanted & ~USO, wanted & TunOffload.CSUM, TunOffload.NONE)
    refused: OSError | None = None
    for offloads in dict.fromkeys(ladder):
        try:
            fcntl.ioctl(fd, kernel.TUNSETOFFLOAD, int(offloads))
        except OSError as error:
            refused = error
            continue
        if refused is not None:
            logger.info(
                "the TUN device has no offload %s (%s): going on with %s",
                wanted & ~offloads,
                refused.strerror,
                offloads,
            )
        return offloads
    return TunOffload.NONE


def _has_protocol_information(name: str) -> bool:
    """Return whether frames carry struct tun_pi, as far as sysfs shows the device.

    TUNGETIFF does not say: it reports IFF_NOFILTER in the very bit of IFF_NO_PI.
    """
    try:
        flags = int(Path("/sys/class/net", name, "tun_flags").read_text(), 16)
    except (OSError, ValueError):
        return False
    return not flags & kernel.IFF_NO_PI


def _why_not_permitted() -> str:
    """What is in the way: the device file, by its mode or by a container's rules, or our rights."""
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EACCES:
            return f"{_DEVICE} cannot be opened by this user: chmod 666 {_DEVICE}, its usual mode"
        return (
            f"the container has no access to {_DEVICE}: pass it on (docker run --device {_DEVICE})"
        )
    return "be root or have CAP_NET_ADMIN"


def check_device_file() -> None:
    """Raise TunError where no TUN device can be created for lack of `/dev/net/tun`."""
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise TunError(_why_not_opened("", error)) from error


def _why_not_opened(name: str, error: OSError) -> str:
    match error.errno:
        case errno.EBUSY:
            return f"an interface named {name} already exists; remove it or choose another name"
        case errno.EINVAL:
            return (
                f"{name!r} is refused as a name for a TUN device: it takes 1 to 15 bytes without "
                "space, slash or colon, and no interface of another kind may have it"
            )
        case errno.EPERM | errno.EACCES:
            return f"no permission to create the TUN device {name}: {_why_not_permitted()}"
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return (
                f"cannot create the TUN device {name}: the kernel offers no /dev/net/tun; "
                "load the module (modprobe tun) or pass the device into the container"
            )
        case _:
            return f"cannot create the TUN device {name}: {error.strerror or error}"
