"""`kindred`: the commands against a running installation, and what they say when something is wrong."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import KINDRED, REPOSITORY, Installation, Shop, free_port, until


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


def test_a_string_is_told_offline_what_it_is_as_a_key(installation: Installation, shop: Shop) -> None:
    """Kind, cell and whether it is whole, without a database and without repeating it; a text is searched for keys."""
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    said = installation.kindred("keys", "check", shop.publishable_key, **nowhere).stdout
    assert "publishable key" in said
    assert "of cell 00" in said
    assert shop.publishable_key not in said
    cut = installation.kindred("keys", "check", shop.secret_key[:-1], status=2, **nowhere)
    assert "47 characters instead of 48" in cut.stderr
    wrong = shop.secret_key[:-1] + ("0" if shop.secret_key[-1] != "0" else "1")
    assert "checksum is wrong" in installation.kindred("keys", "check", wrong, status=2, **nowhere).stderr
    done = subprocess.run(
        [*KINDRED, "keys", "check", "-"],
        input=f"one {shop.secret_key}, and {wrong}",
        env={**installation.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("at character 4: secret key")
    assert "1 API keys" in done.stderr


def test_a_key_is_rotated_by_the_command(installation: Installation, shop: Shop) -> None:
    """The new one works at once, the old one ends when the overlap does."""
    made = json.loads(installation.kindred("keys", "create", shop.name, "--json").stdout)
    key = installation.kindred("keys", "rotate", shop.name, made["key_id"], "--overlap-s", "0").stdout.strip()

    def status(key: str) -> int:
        return shop.client.get("/v1/items", headers={"Authorization": f"Bearer {key}"}).status_code

    assert status(key) == 200
    until(lambda: status(made["key"]) == 401, "the old key to end")
    assert installation.kindred("keys", "rotate", shop.name, "x", "--overlap-s", "-1", status=2).stderr


def test_a_visitor_token_for_trying_works(installation: Installation, shop: Shop) -> None:
    """With the publishable key of the shop; one that no server would believe is not printed."""
    token = installation.kindred(
        "keys", "visitor-token", shop.name, "--user", "u-1", "--filter", '{"eq": ["brand", "Lumo"]}'
    ).stdout.strip()
    for name in ("Lumo", "Terra"):
        shop.client.put(f"/v1/items/{name}", json={"title": "lamp", "brand": name}).raise_for_status()
    headers = {"Authorization": f"Bearer {shop.publishable_key}", "X-Visitor-Token": token}
    answer = shop.client.post("/v1/recommend", json={"user_id": "u-1"}, headers=headers).raise_for_status()
    assert [item["id"] for item in answer.json()["items"]] == ["Lumo"]
    long = installation.kindred("keys", "visitor-token", shop.name, "--user", "u-1", "--hours", "48", status=2)
    assert "24 hours" in long.stderr
    assert installation.kindred("keys", "visitor-token", shop.name, "--user", "u", "--filter", "{", status=2).stderr


def test_the_secret_of_a_data_folder_is_changed_by_commands(tmp_path: Path) -> None:
    """Announced, adopted, forgotten, with a restart between; keys and what depends on them are counted."""
    own = Installation(tmp_path / "data", free_port())
    own.data_dir.mkdir()
    (tmp_path / "data").chmod(0o755)
    tmp_path.chmod(0o755)
    key = json.loads(own.kindred("tenants", "create", "Rotating", "--json").stdout)["secret_key"]
    assert "0 old secrets" in own.kindred("secret", "forget").stdout
    before = (own.data_dir / "secret_key").read_text()
    assert "announced" in own.kindred("secret", "rotate").stdout
    assert (own.data_dir / "secret_key").read_text() == before
    assert "signs from each process's next start" in own.kindred("secret", "rotate").stdout
    assert (own.data_dir / "secret_key").read_text() != before
    status = own.kindred("secret", "status", status=1).stdout
    assert re.search(r"current +0 +0 +0 +0 +0 +0 +0", status)
    assert re.search(r"believed +[1-9]\d* +0 +0 +0 +0 +0 +0", status)
    assert "still depend on an old secret" in own.kindred("secret", "forget", status=1).stderr
    assert len(key) == 48
    assert "1 old secrets" in own.kindred("secret", "forget", "--yes").stdout
    fixed = {"KINDRED_SECRET_KEY": "f" * 32}
    assert "KINDRED_SECRET_KEY_OLD" in own.kindred("secret", "rotate", **fixed).stdout
    assert "docs/secrets.md" in own.kindred("secret", "forget", "--yes", status=2, **fixed).stderr


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
