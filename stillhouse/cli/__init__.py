"""The command line. `stillhouse --help` lists what it does."""

from stillhouse.cli.app import main

__all__ = ["main"]
