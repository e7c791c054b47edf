"""Send a file over TCP, or receive one: run as a program in hosts of the lab.

    transfer_program.py receive ADDRESS PORT FILE     prints "listening", then receives one file
    transfer_program.py send ADDRESS PORT FILE

It imports nothing of the project, which need not be installed where it runs.
"""

import socket
import sys


def receive(address: str, port: int, path: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
        with connection, open(path, "wb") as file:
            while data := connection.recv(1 << 18):
                file.write(data)


def send(address: str, port: int, path: str) -> None:
    with socket.create_connection((address, port), timeout=30) as connection, open(path, "rb") as f:
        connection.sendfile(f)


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](sys.argv[2], int(sys.argv[3]), sys.argv[4])
