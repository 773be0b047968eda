"""The command line `modelmux …`: what people type, and what they are shown."""

from __future__ import annotations


def main() -> None:
    """The entry point; imports the commands only once it is called."""
    from deployments.cli.app import main as run

    run()
