"""The commands of the documentation run, in the order in which a reader meets them.

A ```sh block of README.md or docs/*.md is run by bash in one shell per page, from the repository's folder, against a
real installation; ```text is output, or what only a person can do. `make` is asked what it would do.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.installation import REPOSITORY, Installation

_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """The ```sh blocks of a page, in order."""
    return _BLOCK.findall(page.read_text())


_PAGES: Final = [
    str(page.relative_to(REPOSITORY))
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    if blocks(page)
]


def test_the_readme_has_commands() -> None:
    """A README without one leads nowhere."""
    assert "README.md" in _PAGES


@pytest.mark.parametrize("page", _PAGES)
def test_every_command_of_a_page_runs(page: str, installation: Installation, tmp_path: Path) -> None:
    """One shell per page, stopped by the first command that fails."""
    shop = installation.make_shop("readme")
    script = [
        "set -euo pipefail",
        'make() { command make --dry-run "$@" >/dev/null; }',
        # The address is the reader's, and no setting.
        'kindred() { env -u KINDRED_URL kindred "$@"; }',
    ]
    for number, block in enumerate(blocks(REPOSITORY / page), 1):
        script += [f"echo '== block {number} =='", block]
    bin_folder = REPOSITORY / ".venv" / "bin"
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=REPOSITORY,
        env={
            **installation.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "KINDRED_URL": installation.url,
            "SECRET_KEY": shop.secret_key,
            "PUBLISHABLE_KEY": shop.publishable_key,
            "TMPDIR": str(tmp_path),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    shop.client.close()
    assert done.returncode == 0, f"{page}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
