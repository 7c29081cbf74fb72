"""kill -9 of a whole installation's parts under work: it mends itself, and what was acknowledged is there."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.installation import Installation, Shop, free_port, until

_ITEMS = 400


@pytest.fixture(scope="module")
def fragile(installation: Installation) -> Iterator[Installation]:
    """An installation of this file's own, as others would suffer."""
    folder = Path(os.environ["PYTEST_CLUSTERS"]) / f"kill{os.getpid()}"
    pack = installation.data_dir / "models" / "all-minilm-l6-v2"
    with Installation(folder, free_port(), {"KINDRED_MODELS_TEXT": str(pack)}).running() as running:
        yield running


def _children(pid: int) -> dict[int, str]:
    """Process ids of the children of a process, with their command lines."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            found[int(child)] = line.strip()
    return found


def _role(fragile: Installation, words: str) -> int | None:
    """The process id of the child whose command line holds `words`; None while there is none."""
    return next((pid for pid, line in _children(fragile.pid).items() if words in line), None)


def _feed(folder: Path) -> Path:
    file = folder / "feed.jsonl"
    with file.open("w") as lines:
        for number in range(_ITEMS):
            item = {"id": f"i{number}", "title": f"Oak shelf number {number}", "price": 100 + number}
            lines.write(json.dumps(item) + "\n")
    return file


def _listed(shop: Shop) -> dict[str, str]:
    """Title by id of every item."""
    found: dict[str, str] = {}
    cursor: dict[str, str] = {}
    while True:
        page = shop.client.get("/v1/items", params={"limit": 1000, **cursor}).raise_for_status().json()
        found |= {item["id"]: item["title"] for item in page["items"]}
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_a_killed_worker_loses_no_part_of_an_import(fragile: Installation, tmp_path: Path) -> None:
    """The job goes on in the next worker to its end, and every item is stored once and encoded."""
    shop = fragile.make_shop("killed worker")
    feed = _feed(tmp_path).read_bytes()
    job = shop.client.post("/v1/imports", content=feed, headers={"Content-Type": "application/x-ndjson"}).json()
    before = _role(fragile, "-m workers")
    assert before is not None
    os.kill(before, signal.SIGKILL)

    def ended() -> bool:
        state = shop.client.get(f"/v1/jobs/{job['job_id']}").json()["status"]
        return state not in {"queued", "running"}

    until(ended, "the import")
    assert shop.client.get(f"/v1/jobs/{job['job_id']}").json()["status"] == "done"
    assert _listed(shop) == {f"i{number}": f"Oak shelf number {number}" for number in range(_ITEMS)}
    assert shop.wait_until_encoded()["text"]["done"] == _ITEMS
    # Encoded into the right items: each is the likest to its own title.
    for number in (0, 7, _ITEMS - 1):
        assert shop.search(query=f"Oak shelf number {number}", count=1)["items"][0]["id"] == f"i{number}"
    after = _role(fragile, "-m workers")
    assert after not in {None, before}
    shop.client.close()


def _tell(shop: Shop, shoppers: int) -> None:
    """Purchases of pairs that go together, ten of each shopper."""
    events = [
        {"type": "purchase", "user_id": f"u{who}", "item_id": f"i{(who % 20) * 2 + n % 2 + 40 * (n // 2)}"}
        for who in range(shoppers)
        for n in range(10)
    ]
    for start in range(0, len(events), 1000):
        answer = shop.client.post("/v1/events", json={"events": events[start : start + 1000]}).raise_for_status()
        assert answer.json()["rejected"] == 0


def test_a_worker_killed_in_training_leaves_the_old_model_serving(fragile: Installation, tmp_path: Path) -> None:
    """Nothing of the half-made model is seen; the next worker takes the job up and its model serves."""
    shop = fragile.make_shop("killed training")
    sent = shop.client.post(
        "/v1/imports", content=_feed(tmp_path).read_bytes(), headers={"Content-Type": "application/x-ndjson"}
    )

    def state(job: str) -> str:
        found: str = shop.client.get(f"/v1/jobs/{job}").json()["status"]
        return found

    # Else a training might begin before there is anything to learn about.
    until(lambda: state(sent.json()["job_id"]) == "done", "the import")
    shop.wait_until_encoded()

    def train() -> str:
        job: str = shop.client.post("/v1/models/train").raise_for_status().json()["job_id"]
        return job

    def serving() -> str:
        version: str = shop.recommend(user_id="u1")["model_version"]
        return version.partition("+b")[2]

    _tell(shop, 300)
    first = train()
    until(lambda: state(first) not in {"queued", "running"}, "the first training")
    assert state(first) == "done"
    before = until(serving, "the first model")
    _tell(shop, 300)
    second = train()
    until(lambda: state(second) == "running", "the second training")
    worker = _role(fragile, "-m workers")
    assert worker is not None
    helpers = _children(worker)
    os.kill(worker, signal.SIGKILL)
    assert serving() == before
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helpers), "the killed worker's children to end")
    until(lambda: state(second) not in {"queued", "running"}, "the second training")
    assert state(second) == "done"
    until(lambda: serving() != before, "the second model")
    shop.client.close()


def test_a_killed_database_loses_no_acknowledged_write(fragile: Installation) -> None:
    """Writes under the kill are answered by success or by a problem, and every success is there afterwards."""
    shop = fragile.make_shop("killed database")
    acknowledged: dict[str, str] = {}
    killed = False
    refused = 0
    pid_file = fragile.data_dir / "pg18" / "postmaster.pid"
    before = int(pid_file.read_text().split()[0])
    number = 0
    while len(acknowledged) < 60 or not killed:
        number += 1
        body = {"title": f"Write {number}"}
        answer = shop.client.put(f"/v1/items/w{number}", json=body)
        if answer.status_code == 201:
            acknowledged[f"w{number}"] = body["title"]
        else:
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"]
            refused += 1
            until(lambda: shop.client.get("/health/ready").status_code == 200, "the database to come back")
        if len(acknowledged) == 30 and not killed:
            os.kill(before, signal.SIGKILL)
            killed = True
    assert int(pid_file.read_text().split()[0]) != before
    listed = _listed(shop)
    assert acknowledged.items() <= listed.items()
    # One that was refused may have been stored just before the connection broke, but nothing else.
    assert len(listed) <= number
    counts = shop.wait_until_encoded()
    assert counts["text"]["done"] == len(listed)
    shop.client.close()


def test_a_killed_api_is_started_again(fragile: Installation) -> None:
    """The address answers again, with the same keys."""
    shop = fragile.make_shop("killed api")
    shop.client.put("/v1/items/x", json={"title": "Bell"}).raise_for_status()
    before = _role(fragile, "-m api")
    assert before is not None
    os.kill(before, signal.SIGKILL)

    def again() -> bool:
        try:
            return shop.client.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    until(lambda: _role(fragile, "-m api") not in {None, before} and again(), "the API")
    assert shop.item("x")["title"] == "Bell"
    shop.client.close()


def test_what_ended_was_reported(fragile: Installation) -> None:
    """The log names each end: an operator sees that something was restarted."""
    pid = _role(fragile, "-m workers")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: _role(fragile, "-m workers") not in {None, pid}, "the workers")
    assert "SIGKILL" in fragile.log
