"""The compiled datapath. `tunnel/datapath/interface.py` says what each function does."""

from collections.abc import Sequence
from typing import final

from tunnel.datapath.interface import Offload, Opened, ReadableBuffer, Sealed

@final
class Ledger:
    """A file in which sessions note their counters; see `interface.Ledger`."""

    def __new__(cls, fd: int, block: int = ...) -> Ledger: ...

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
        received: int = 0,
        ledger: tuple[Ledger, int, int] | None = None,
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
    def hand_over(self) -> None: ...
    def forget_ledger(self) -> None: ...
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

def use_cipher(name: str | None, /) -> str:
    """Let the sessions made after it use "ipsec-mb" or "aws-lc", or the first of them that works.

    Returns its name, with the version of ipsec-mb. Raises ValueError with the reason if it cannot
    be used here.
    """

@final
class Identity:
    """Handshakes of one private key; see `StaticIdentity` of `tunnel.protocol.driver`."""

    def __new__(cls, private_key: bytes) -> Identity: ...
    def add_peer(self, public_key: bytes) -> None: ...
    def prepare(self, most: int) -> bool: ...
    def remove_peer(self, public_key: bytes) -> None: ...
    def is_low_order(self, public_key: bytes) -> bool: ...
    def create_initiation(
        self, public_key: bytes, ephemeral: bytes, local_index: int, timestamp: bytes
    ) -> tuple[bytes, Pending]: ...
    def consume_initiations(self, messages: list[bytes]) -> ReceivedInitiations: ...

@final
class Pending:
    """An initiation that may be answered; see `AwaitedResponse` of `tunnel.protocol.driver`."""

    def consume_response(
        self, message: bytes, preshared_key: bytes
    ) -> tuple[bytes, bytes] | None: ...

@final
class ReceivedInitiations:
    """See `ReceivedInitiations` of `tunnel.protocol.driver`."""

    @property
    def senders(self) -> list[tuple[bytes, int, bytes] | None]: ...
    def create_responses(self, answers: list[tuple[int, bytes, int, bytes]]) -> Responses: ...

@final
class Responses:
    """What that gives."""

    def __iter__(self) -> Responses: ...
    def __next__(self) -> tuple[bytes, bytes, bytes]: ...
