"""The commands of the lab."""

import typer

app = typer.Typer()
