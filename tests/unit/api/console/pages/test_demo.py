from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from litestar import Litestar
from litestar.datastructures import State
from litestar.testing import TestClient

from api.console.pages.demo import ROUTES, render_demo
from infra.demo.shop import DemoShop, write_demo


def _app(folder: Path, shop: DemoShop | None) -> Litestar:
    if shop is not None:
        write_demo(folder, shop)
    services = SimpleNamespace(settings=SimpleNamespace(data_dir=folder))
    return Litestar(ROUTES, state=State({"services": services}), openapi_config=None)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient[Litestar]]:
    with TestClient(_app(tmp_path, DemoShop(name="Shop", publishable_key="pk_x"))) as client:
        yield client


def test_the_page_has_the_shops_name_and_key(client: TestClient[Litestar]) -> None:
    """The template is filled, and no hole is left."""
    page = client.get("/demo")
    assert page.headers["content-type"].startswith("text/html")
    assert '<meta name="kindred-key" content="pk_x">' in page.text
    assert "<title>Shop · Kindred</title>" in page.text
    assert "{{" not in page.text


def test_names_are_escaped() -> None:
    """A shop's name is text, never markup."""
    page = render_demo(DemoShop(name='<script>"', publishable_key='"><b>'))
    assert "<script>&quot;" not in page
    assert "&lt;script&gt;&quot;" in page
    assert "<b>" not in page


def test_without_a_shop_the_page_says_how_to_load_one(tmp_path: Path) -> None:
    """The address is never a bare 404."""
    with TestClient(_app(tmp_path, None)) as client:
        page = client.get("/demo")
    assert page.status_code == 200
    assert "kindred demo" in page.text


@pytest.mark.parametrize("shop", [None, DemoShop(name="Shop", publishable_key="pk_x")])
def test_nothing_inline_needs_to_run(shop: DemoShop | None) -> None:
    """The strict policy of the page blocks nothing that the page needs."""
    page = render_demo(shop)
    assert "<style" not in page
    assert " style=" not in page
    assert "<script>" not in page
    assert " onclick" not in page


def test_the_policy_allows_no_foreign_scripts(client: TestClient[Litestar]) -> None:
    """Scripts and styles come from this server only."""
    policy = client.get("/demo").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", ["demo.css", "demo.js", "client.js", "cards.js", "row.js"])
def test_an_asset_is_served_once_and_then_confirmed(client: TestClient[Litestar], name: str) -> None:
    """A repeated load costs a 304."""
    first = client.get(f"/demo/assets/{name}")
    assert first.status_code == 200
    again = client.get(f"/demo/assets/{name}", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpages%2Fdemo.py", "%2Fetc%2Fpasswd"])
def test_no_other_file_can_be_had(client: TestClient[Litestar], name: str) -> None:
    """Only the listed assets exist."""
    assert client.get(f"/demo/assets/{name}").status_code == 404
