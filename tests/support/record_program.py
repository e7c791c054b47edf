"""What comes to a UDP port, recorded as an attacker on the way would, as a program in a host.

    record_program.py INTERFACE PORT COUNT FILE

Each datagram is a line of hexadecimal digits. The file is there once there are COUNT of them.
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

from tunnel.linux.packet_socket import PacketSocket, tunnel_datagrams
from tunnel.packet.headers import UDP_HEADER, header_length


def main() -> None:
    """Record, and end."""
    interface, port, count, file = sys.argv[1:]
    found: list[str] = []
    with PacketSocket(interface, tunnel_datagrams(int(port))) as tap:
        print("begins", flush=True)
        while len(found) < int(count):
            select.select([tap.socket], [], [])
            while (seen := tap.read()) is not None:
                if not seen.outgoing:
                    found.append(seen.packet[header_length(seen.packet) + UDP_HEADER :].hex())
    Path(file).write_text("\n".join(found) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
