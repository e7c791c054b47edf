"""The compiled datapath. `tunnel/datapath/interface.py` says what each function does."""

from collections.abc import Sequence
from typing import final

from tunnel.datapath.interface import Offload, Opened, ReadableBuffer, Sealed

@final
class Session:
    """One session's pair of transport keys; see `interface.Session`, which this implements."""

    def __new__(
        cls,
        send_key: bytes,
        receive_key: bytes,
        local_index: int,
        remote_index: int,
        *,
        initial_counter: int = 0,
        ethernet: bool = False,
        short_tails: bool = False,
    ) -> Session: ...
    @property
    def send_counter(self) -> int: ...
    @property
    def local_index(self) -> int: ...
    @property
    def remote_index(self) -> int: ...
    def seal(
        self,
        frames: ReadableBuffer,
        spans: Sequence[tuple[int, int]],
        mtu: int,
        out: bytearray,
        start: int = 0,
    ) -> Sealed: ...
    def seal_keepalive(self) -> bytes: ...
    def open(
        self,
        datagrams: ReadableBuffer,
        start: int,
        end: int,
        stride: int,
        out: bytearray,
        *,
        coalesce: Offload = ...,
        outer_ecn: int = 0,
    ) -> Opened: ...

def check_mac1(
    key: bytes, datagrams: ReadableBuffer, start: int, end: int, stride: int, /
) -> bytes:
    """Tell which datagrams of a batch have a right mac1; see `interface.MacCheck`."""

def check_mac2(
    cookie: bytes, datagrams: ReadableBuffer, start: int, end: int, stride: int, /
) -> bytes:
    """Tell which datagrams of a batch have a right mac2; see `interface.MacCheck`."""

def disable_encryption() -> None:
    """Let the sessions made after it neither encrypt nor authenticate: for `tunnel bench`."""
