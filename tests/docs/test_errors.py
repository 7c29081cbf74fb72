"""docs/errors.md names every error that a caller can meet."""

import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest

import api
import billing
import infra
import tenants
import workers
from api.problems import status_of
from infra.errors import KindredError

_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def _all_errors() -> list[type[KindredError]]:
    for package in (api, billing, infra, tenants, workers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # The training needs torch, which the service is installed without.
            if module.name.startswith("workers.training"):
                continue
            if not module.name.endswith(("__main__", ".env")) and ".versions." not in module.name:
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError as error:
                    if error.name != "torch":  # an optional install
                        raise
    found: list[type[KindredError]] = []

    def walk(kind: type[KindredError]) -> None:
        for child in kind.__subclasses__():
            found.append(child)
            walk(child)

    walk(KindredError)
    # Only ours: tests define kinds of their own.
    return sorted({kind for kind in found if kind.__module__.split(".")[0] != "tests"}, key=lambda kind: kind.code)


@pytest.fixture(scope="module")
def errors() -> list[type[KindredError]]:
    return _all_errors()


def _section(kind: type[KindredError]) -> str:
    meaning = " ".join((kind.__doc__ or "").split())
    return f"## {kind.code}\n\n`{status_of(kind)}` {kind.title}. {meaning}\n"


def test_every_code_is_of_one_error(errors: list[type[KindredError]]) -> None:
    """A client can tell errors apart by `code` alone."""
    shared = [code for code, count in Counter(kind.code for kind in errors).items() if count > 1]
    assert [(kind.code, kind.__module__) for kind in errors if kind.code in shared] == []


def test_every_error_says_what_it_is(errors: list[type[KindredError]]) -> None:
    """A snake_case code, a title of its own without a full stop, a docstring."""
    for kind in errors:
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", kind.code)
        assert kind.title
        assert not kind.title.endswith(".")
        assert kind.__doc__


def test_every_code_has_its_section(errors: list[type[KindredError]]) -> None:
    """The heading is the code, so that a problem's `type` finds it; what fails here is ready to be pasted."""
    page = _PAGE.read_text()
    missing = [_section(kind) for kind in errors if f"\n## {kind.code}\n" not in page]
    assert not missing, "add to docs/errors.md, in the order of codes:\n\n" + "\n".join(missing)


def test_no_section_is_of_an_error_that_is_gone(errors: list[type[KindredError]]) -> None:
    """The page shrinks with the code."""
    codes = {kind.code for kind in errors}
    assert [code for code in re.findall(r"^## (\w+)$", _PAGE.read_text(), re.MULTILINE) if code not in codes] == []


def test_the_sections_say_the_status(errors: list[type[KindredError]]) -> None:
    """As `api/problems.py` maps it."""
    page = _PAGE.read_text()
    for kind in errors:
        (status,) = re.findall(rf"^## {kind.code}\n\n`(\d+)`", page, re.MULTILINE)
        assert int(status) == status_of(kind)
