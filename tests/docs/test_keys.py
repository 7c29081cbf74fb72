"""docs/keys.md and docs/visitor-tokens.md say what the code does."""

import re
from pathlib import Path
from typing import Final

import pytest

from api.app import Application, create_app
from api.openapi import document, operations
from infra.blob_folder import FolderBlobs
from infra.db import Database
from infra.settings import SECRETS, Settings
from tests.installation import REPOSITORY

_DOCS: Final = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """The application, not started."""
    folder = tmp_path_factory.mktemp("data")
    database = Database("postgresql://nobody:x@127.0.0.1:1/none")
    return create_app(Settings(secret_key="x" * 32, data_dir=folder), database, FolderBlobs(folder))


def _table(app: Application) -> str:
    rows: dict[str, list[str]] = {}
    for each in operations(app.framework):
        if each.scope != "public":
            rows.setdefault(each.scope, []).append(f"`{each.method} {each.path}`")
    lines = [f"| `{scope}` | {', '.join(rows[scope])} |" for scope in sorted(rows)]
    return "\n".join(["| scope | routes |", "|---|---|", *lines])


def test_the_table_of_scopes_is_that_of_the_routes(app: Application) -> None:
    """Every route that needs a key stands beside its scope; what fails here is ready to be pasted."""
    page = (_DOCS / "keys.md").read_text()
    (written,) = re.findall(r"<!-- generated: .* -->\n(.*)<!-- end -->", page, re.DOTALL)
    assert written.strip() == _table(app), _table(app)


def test_the_openapi_document_says_the_scope_of_each_route(app: Application) -> None:
    """For programs, too."""
    paths = document(app.framework)["paths"]
    for each in operations(app.framework):
        told = paths[each.path][each.method.lower()]
        assert told.get("x-scope") == (None if each.scope == "public" else each.scope)


def test_every_secret_setting_is_named_where_files_are_explained() -> None:
    """`<name>_FILE` is found by whoever mounts secrets."""
    page = (_DOCS / "secrets.md").read_text()
    assert [name for name in SECRETS if f"`{name}`" not in page] == []


def python_snippet(page: Path) -> str:
    """The first Python of a page."""
    (code, *_) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)
