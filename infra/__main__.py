"""`kindred`, and `python -m infra`: parses arguments and runs a command.

A command's module is imported when it runs, so that `kindred --help` is quick.
"""

import sys
from dataclasses import replace
from importlib import import_module

from infra.arguments import make_parser
from infra.errors import KindredError
from infra.settings import Settings


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        settings = Settings.from_env()
        if arguments.data_dir is not None:
            settings = replace(settings, data_dir=arguments.data_dir)
        from infra.telemetry import configure_logging

        configure_logging(settings.log, settings.log_level if arguments.command == "up" else "warning")
        module, _, name = arguments.run.partition(":")
        status: int = getattr(import_module(f"infra.commands.{module}"), name)(settings, arguments)
    except KindredError as error:
        print(f"kindred: {error.title}: {error.detail}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
