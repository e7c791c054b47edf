"""`python -m tunnel` is the command `tunnel`."""

from tunnel.cli.main import run

if __name__ == "__main__":
    run()
