"""`kindred evaluate`: how good every model is on a file of interactions."""

import sys
from argparse import Namespace

from rich.console import Console

from infra.commands.models import fetch_missing_packs
from infra.settings import Settings
from workers.evaluation.command import run_command


def run(settings: Settings, arguments: Namespace) -> int:
    """Measure, print the table, write the card and its page."""
    if arguments.items is not None:
        fetch_missing_packs(settings)
    return run_command(settings, arguments, Console(), sys.argv[1:])
