"""`python -m tunnel` is the command `tunnel`."""

from tunnel.cli.entry import run

if __name__ == "__main__":
    run()
