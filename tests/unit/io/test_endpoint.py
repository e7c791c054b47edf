import socket

import pytest

from tunnel.io.endpoint import Endpoint, Source

V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
LINK_LOCAL = socket.inet_pton(socket.AF_INET6, "fe80::1")


@pytest.mark.parametrize(
    ("endpoint", "text", "sockaddr"),
    [
        (Endpoint(bytes([192, 0, 2, 1]), 51820), "192.0.2.1:51820", ("192.0.2.1", 51820)),
        (Endpoint(V6, 5), "[2001:db8::1]:5", ("2001:db8::1", 5, 0, 0)),
        (Endpoint(LINK_LOCAL, 5, 7), "[fe80::1%7]:5", ("fe80::1", 5, 0, 7)),
    ],
)
def test_prints_and_gives_the_socket_address(
    endpoint: Endpoint, text: str, sockaddr: tuple[object, ...]
) -> None:
    assert str(endpoint) == text
    assert endpoint.sockaddr == sockaddr
    assert Endpoint.from_sockaddr(endpoint.sockaddr) == endpoint


def test_mapped_address_becomes_ipv4() -> None:
    assert Endpoint.from_sockaddr(("::ffff:192.0.2.1", 9, 0, 3)) == Endpoint(
        bytes([192, 0, 2, 1]), 9
    )


def test_scope_suffix_of_getaddrinfo_is_understood() -> None:
    assert Endpoint.from_sockaddr(("fe80::1%eth0", 9, 0, 3)) == Endpoint(LINK_LOCAL, 9, 3)


def test_equality_and_hash_include_the_source_but_same_remote_does_not() -> None:
    plain = Endpoint(bytes([192, 0, 2, 1]), 9)
    sticky = Endpoint(bytes([192, 0, 2, 1]), 9, source=Source(bytes([192, 0, 2, 2]), 1))
    again = Endpoint(bytes([192, 0, 2, 1]), 9, source=Source(bytes([192, 0, 2, 2]), 1))
    assert sticky == again
    assert hash(sticky) == hash(again)
    assert plain != sticky
    assert plain.same_remote(sticky)
    assert sticky.without_source() == plain
    assert plain.without_source() is plain
    assert plain != "192.0.2.1:9"


def test_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Endpoint(V6, 5).port = 6  # type: ignore[misc]


@pytest.mark.parametrize(
    ("address", "port", "source"),
    [
        (b"", 1, None),
        (bytes(5), 1, None),
        (bytes(4), 0, None),
        (bytes(4), 65536, None),
        (bytes(4), 1, Source(bytes(16), 1)),
    ],
)
def test_nonsense_is_refused(address: bytes, port: int, source: Source | None) -> None:
    with pytest.raises(ValueError, match=r"address|port|families"):
        Endpoint(address, port, source=source)
