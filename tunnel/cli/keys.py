"""The commands of the keys."""

import typer

app = typer.Typer()
