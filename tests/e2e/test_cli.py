"""`kindred`: the commands against a running installation, and what they say when something is wrong."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation, Shop, free_port, until


@pytest.fixture
def shop(installation: Installation) -> Iterator[Shop]:
    """An empty shop."""
    made = installation.make_shop("cli")
    yield made
    made.client.close()


def _words(*lines: str) -> str:
    return " ".join(" ".join(lines).split())


def test_a_deleted_shop_is_gone(installation: Installation, shop: Shop) -> None:
    """It leaves the list, and its keys open nothing."""
    shop.client.put("/v1/items/x", json={"title": "Lamp"}).raise_for_status()
    assert shop.name in installation.kindred("tenants", "list").stdout
    installation.kindred("tenants", "delete", shop.name, "--yes")
    assert shop.name not in installation.kindred("tenants", "list").stdout
    until(lambda: shop.client.get("/v1/items").status_code == 401, "the keys to end")


def test_erasures_that_the_database_knows_are_not_done_again(installation: Installation, shop: Shop) -> None:
    """The command reads what the API has written to the object store, by the same secret."""
    shop.client.put("/v1/users/u", json={}).raise_for_status()
    assert shop.client.delete("/v1/users/u").status_code == 204
    assert _words(installation.kindred("erasures", "replay").stdout) == "kindred: 0 ids were erased again."


def test_a_revoked_key_opens_nothing(installation: Installation, shop: Shop) -> None:
    """A key is made, shown in the list by its id and never whole, works, and ends when it is revoked."""
    made = json.loads(
        installation.kindred("keys", "create", shop.name, "--name", "spare", "--scope", "catalog:read", "--json").stdout
    )
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert shop.client.get("/v1/items", headers=headers).status_code == 200
    assert shop.client.put("/v1/items/x", headers=headers, json={}).status_code == 403
    listed = installation.kindred("keys", "list", shop.name).stdout
    assert made["key_id"] in listed
    assert made["key"] not in listed
    installation.kindred("keys", "revoke", shop.name, made["key_id"])
    until(lambda: shop.client.get("/v1/items", headers=headers).status_code == 401, "the key to end")
    assert shop.client.get("/v1/items", headers=headers).json()["code"] == "key_revoked"


def test_the_audit_log_is_checked_and_written_out(installation: Installation, shop: Shop, tmp_path: Path) -> None:
    """The worker seals what commands and requests did; a shop and a file are whole, a changed file is not."""
    shop.client.put("/v1/placements/home", json={"defaults": {"count": 3}}).raise_for_status()

    def sealed() -> bool:
        return "wait for" in (said := installation.kindred("audit", "verify", shop.name).stdout) and "; 0 " in said

    until(sealed, "the seal")
    file = tmp_path / "audit.ndjson"
    installation.kindred("audit", "export", shop.name, "--out", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    actions = [(line["action"], line["actor"]["kind"]) for line in lines if "action" in line]
    assert sorted(actions) == [
        ("key.create", "command"),
        ("key.create", "command"),
        ("placement.put", "key"),
        ("tenant.create", "command"),
    ]
    assert "4 entries are as they were sealed" in installation.kindred("audit", "verify", "--file", str(file)).stdout
    assert installation.kindred("audit", "export", shop.name).stdout == file.read_text()
    file.write_text(file.read_text().replace('"subject":"home"', '"subject":"cart"'))
    said = _words(installation.kindred("audit", "verify", "--file", str(file), status=1).stdout)
    assert "differs from its seals at seal" in said
    for arguments in ((), (shop.name, "--file", str(file)), ("--file", str(tmp_path / "none"))):
        assert installation.kindred("audit", "verify", *arguments, status=2).stderr


def test_doctor_finds_nothing_wrong(installation: Installation) -> None:
    """Every check of a sound installation is ok, beside the running server."""
    said = installation.kindred("doctor").stdout
    assert "fail" not in said
    for check in ("pgvector", "roles", "schema", "model packs", "blob store", "disk", "clock"):
        assert check in said


def test_the_packs_in_use_are_whole(installation: Installation) -> None:
    """`models verify` reads every file, `models list` says which are here."""
    said = installation.kindred("models", "verify").stdout
    assert said.count("match their sha256") == 2
    listed = installation.kindred("models", "list").stdout
    assert "all-minilm-l6-v2" in listed
    assert "kindred-image-v1" in listed


def test_migrate_can_be_repeated(installation: Installation) -> None:
    """Under a running server, twice: the same revision."""
    assert installation.kindred("migrate").stdout == installation.kindred("migrate").stdout


def test_what_does_not_exist_is_named(installation: Installation) -> None:
    """No traceback, one line, exit 2."""
    for arguments in (("tenants", "delete", "no such shop", "--yes"), ("keys", "list", "no such shop")):
        said = installation.kindred(*arguments, status=2).stderr
        assert said.startswith("kindred: ")
        assert "no such shop" in said
        assert "Traceback" not in said


def test_a_bad_import_says_why(installation: Installation, shop: Shop, tmp_path: Path) -> None:
    """A missing file, a wrong key, a server that is not there; rejected rows are an exit of 1 with their reason."""
    missing = installation.kindred("import", str(tmp_path / "none.csv"), "--key", shop.secret_key, status=2)
    assert "there is no file" in missing.stderr
    feed = tmp_path / "feed.csv"
    feed.write_text("id,title,price\n1,Lamp,9.50\n2,Mug,cheap\n3,Bag,7\n")
    refused = installation.kindred("import", str(feed), "--key", shop.secret_key[:-1] + "!", status=2)
    assert "key" in refused.stderr
    away = installation.kindred("import", str(feed), "--key", "x", "--server", "http://127.0.0.1:9", status=2)
    assert "Is `kindred up` running?" in _words(away.stderr)
    done = installation.kindred("import", str(feed), "--key", shop.secret_key, status=None)
    assert "price" in done.stdout
    assert shop.item("1")["price"] == 950


def test_bad_settings_are_all_named(installation: Installation) -> None:
    """An unknown and a malformed one, before anything starts."""
    done = installation.kindred("up", status=2, KINDRED_COLOUR="red", KINDRED_METRICS_PORT="many")
    assert "KINDRED_COLOUR" in done.stderr
    assert "KINDRED_METRICS_PORT" in done.stderr


def test_a_taken_port_is_said(installation: Installation, open_folder: Path) -> None:
    """With the command that avoids it, and nothing is left behind."""
    done = installation.kindred("--data-dir", str(open_folder / "other"), "up", status=2)
    assert f"port {installation.port} of 127.0.0.1 is taken" in done.stderr
    assert f"--port {installation.port + 1}" in done.stderr
    assert not (open_folder / "other").exists()


def test_a_second_server_of_one_folder_is_refused(installation: Installation, shop: Shop) -> None:
    """It says so, and the first one goes on."""
    done = installation.kindred("up", "--port", str(free_port()), status=2)
    assert str(installation.data_dir) in _words(done.stderr)
    assert "Traceback" not in done.stderr
    assert shop.client.get("/health/ready").status_code == 200


def test_a_command_prepares_a_new_folder_by_itself(installation: Installation, open_folder: Path) -> None:
    """The first command of a fresh machine may be `tenants create`: the database is made and migrated."""
    folder = open_folder / "new"
    done = installation.kindred("--data-dir", str(folder), "tenants", "create", "First", "--json")
    assert json.loads(done.stdout)["secret_key"].startswith("sk_")
    assert "First" in installation.kindred("--data-dir", str(folder), "tenants", "list").stdout


def test_help_names_every_command(installation: Installation) -> None:
    """`kindred --help`, without a database."""
    done: subprocess.CompletedProcess[str] = installation.kindred("--help")
    for command in ("up", "demo", "migrate", "tenants", "keys", "import", "models", "doctor"):
        assert command in done.stdout
