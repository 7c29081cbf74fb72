"""Users, segments, visitors who sign in, and people erased."""

from typing import Any

import pytest

from api.app import Application
from infra.blob import BlobsUnavailable
from infra.db import driver
from infra.secret import Secret
from tenants.audience import segments
from tenants.audience.shoppers import USER
from tenants.audience.tombstones import replay
from tenants.audience.users import settle_late, subject_hash
from tests.integration.api.conftest import MakeShop, Shop

pytestmark = pytest.mark.anyio

VISITOR = "3f0c2a9e5b7d41f8a6c4e2d09b8f7a61"


async def rows(app: Application, shop: Shop, sql: str) -> list[tuple[Any, ...]]:
    """What a statement of the tenant finds; `$1` is the tenant."""
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        return [tuple(record) for record in await (await driver(conn)).fetch(sql, shop.tenant_id)]


async def send(shop: Shop, *events: dict[str, Any]) -> None:
    """Events that are all taken."""
    answer = await shop.client.post("/v1/events", json={"events": list(events)})
    assert answer.json()["accepted"] == len(events), answer.text


WHO = """
select s.kind, s.external_id, count(*) from events e join shopper_ids s on s.tenant_id = $1
and s.shopper_no = e.shopper_no where e.tenant_id = $1 group by 1, 2 order by 1, 2
"""


async def test_a_user_is_stored_whole(shop: Shop) -> None:
    """PUT replaces; events alone make a user known too."""
    user = {"segments": ["vip"], "attributes": {"country": "DE"}, "seller_id": "s"}
    assert (await shop.client.put("/v1/users/a", json=user)).status_code == 201
    assert (await shop.client.put("/v1/users/a", json={"segments": ["x"]})).status_code == 200
    shown = (await shop.client.get("/v1/users/a")).json()
    assert shown["user"] == {"id": "a", "segments": ["x"]}
    await send(shop, {"type": "view", "item_id": "i", "user_id": "b"})
    assert (await shop.client.get("/v1/users/b")).json()["user"] == {"id": "b"}
    assert (await shop.client.get("/v1/users/c")).json()["code"] == "user_not_found"


async def test_every_bad_field_of_a_user_is_named(shop: Shop) -> None:
    """As of everything else."""
    bad = await shop.client.put("/v1/users/a", json={"segments": "x", "seller_id": "", "age": 3})
    assert bad.status_code == 422
    assert {fault["pointer"] for fault in bad.json()["errors"]} == {"/segments", "/seller_id", "/age"}
    nul = await shop.client.put("/v1/users/a", json={"attributes": {"a": "\0"}})
    assert nul.json()["code"] == "invalid_user"


async def test_a_merged_visitor_has_done_what_the_user_did(app: Application, shop: Shop) -> None:
    """The past is moved, the future goes there, and a repeat changes nothing."""
    view = {"type": "view", "item_id": "i"}
    await send(shop, {**view, "visitor_id": VISITOR}, {**view, "visitor_id": VISITOR}, {**view, "user_id": "u"})
    first = await shop.client.post("/v1/users/u/merge", json={"visitor_id": VISITOR})
    assert first.json() == {"merged": True, "events": 2}
    await send(shop, {**view, "visitor_id": VISITOR})
    assert await rows(app, shop, WHO) == [(1, "u", 4)]
    again = await shop.client.post("/v1/users/u/merge", json={"visitor_id": VISITOR})
    assert again.json() == {"merged": False, "events": 0}
    assert (await shop.client.get("/v1/users/u")).json()["visitors"] == 1


async def test_people_unknown_so_far_can_be_merged(app: Application, shop: Shop) -> None:
    """Their events come later."""
    await shop.client.post("/v1/users/u/merge", json={"visitor_id": VISITOR})
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR})
    assert await rows(app, shop, WHO) == [(1, "u", 1)]


async def test_the_variant_is_of_whom_was_seen_first(app: Application, shop: Shop) -> None:
    """A visitor who was there before the user keeps the bucket."""
    buckets = "select external_id, bucket_key from shopper_ids where tenant_id = $1"
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR})
    await send(shop, {"type": "view", "item_id": "i", "user_id": "u"})
    before = dict(await rows(app, shop, buckets))
    await shop.client.post("/v1/users/u/merge", json={"visitor_id": VISITOR})
    assert dict(await rows(app, shop, buckets))["u"] == before[VISITOR]
    await shop.client.post("/v1/users/u/merge", json={"visitor_id": "later"})
    assert dict(await rows(app, shop, buckets))["u"] == before[VISITOR]


async def test_a_visitor_is_one_user(shop: Shop) -> None:
    """A second one is a conflict; the user's own id is a mistake."""
    await shop.client.post("/v1/users/u/merge", json={"visitor_id": VISITOR})
    taken = await shop.client.post("/v1/users/w/merge", json={"visitor_id": VISITOR})
    assert (taken.status_code, taken.json()["code"]) == (409, "visitor_merged")
    itself = await shop.client.post("/v1/users/u/merge", json={"visitor_id": "u"})
    assert (itself.status_code, itself.json()["code"]) == (422, "merge_with_itself")


async def test_an_erased_person_is_nowhere(app: Application, shop: Shop) -> None:
    """No row of any table holds the ids or the numbers; a keyed hash remembers that somebody was erased."""
    secret_id, secret_visitor = "person-to-be-forgotten", "visitor-to-be-forgotten"
    await shop.client.put(f"/v1/users/{secret_id}", json={"attributes": {"name": "x"}})
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": secret_visitor, "event_id": "e"})
    await shop.client.post(f"/v1/users/{secret_id}/merge", json={"visitor_id": secret_visitor})
    await send(
        shop,
        {"type": "view", "item_id": "i", "user_id": secret_id, "event_id": "f"},
        {"type": "view", "item_id": "i", "user_id": "other"},
    )
    assert (await shop.client.delete(f"/v1/users/{secret_id}")).status_code == 204
    assert (await shop.client.delete(f"/v1/users/{secret_id}")).status_code == 404
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        tables = await raw.fetch(
            "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' "
            "where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
        )
        for (table,) in tables:
            found = await raw.fetchval(
                f"select count(*) from {table} t where t.tenant_id = $1 and t::text ~ 'to-be-forgotten'",
                shop.tenant_id,
            )
            assert (table, found) == (table, 0)
    assert await rows(app, shop, WHO) == [(1, "other", 1)]
    subjects = {subject for (subject,) in await rows(app, shop, "select subject from erasures where tenant_id = $1")}
    assert subject_hash(app.services.secret.current, shop.tenant_id, USER, secret_id) in subjects
    assert len(subjects) == 2


async def test_an_erased_person_who_returns_is_new(app: Application, shop: Shop) -> None:
    """With another number, also in a process that remembers the old one."""
    number = "select shopper_no from shopper_ids where tenant_id = $1"
    await send(shop, {"type": "view", "item_id": "i", "user_id": "u"})
    before = await rows(app, shop, number)
    await shop.client.delete("/v1/users/u")
    await send(shop, {"type": "view", "item_id": "i", "user_id": "u"})
    after = await rows(app, shop, number)
    assert len(before) == len(after) == 1
    assert before != after


async def test_answers_after_an_erasure_are_of_nobody(app: Application, shop: Shop) -> None:
    """The process has written one for the person before, and knows the number; so it is for a merge."""
    whose = (
        "select coalesce(s.external_id, a.shopper_no::text) from answers a left join shopper_ids s "
        "on s.tenant_id = $1 and s.shopper_no = a.shopper_no where a.tenant_id = $1 order by a.answer_id"
    )

    async def ask(**who: str) -> None:
        assert (await shop.client.post("/v1/recommend", json=who)).status_code == 200
        await app.services.answer_log.close()  # written; what it knows it keeps
        app.services.answer_log.start()

    await send(shop, {"type": "view", "item_id": "i", "user_id": "u"}, {"type": "view", "item_id": "i", "user_id": "w"})
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR})
    for who in ({"user_id": "u"}, {"visitor_id": VISITOR}):
        await ask(**who)
    assert await rows(app, shop, whose) == [("u",), (VISITOR,)]
    await shop.client.delete("/v1/users/u")
    await shop.client.post("/v1/users/w/merge", json={"visitor_id": VISITOR})
    for who in ({"user_id": "u"}, {"visitor_id": VISITOR}):
        await ask(**who)
    assert await rows(app, shop, whose) == [(None,), ("w",), (None,), ("w",)]


async def test_what_came_in_the_moment_of_an_erasure_goes_too(app: Application, shop: Shop) -> None:
    """Another process believed its memory a moment too long; upkeep looks again, and so for a merge."""
    await send(shop, {"type": "view", "item_id": "i", "user_id": "u"}, {"type": "view", "item_id": "i", "user_id": "w"})
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR})
    numbers = dict(await rows(app, shop, "select external_id, shopper_no from shopper_ids where tenant_id = $1"))
    await shop.client.delete("/v1/users/u")
    await shop.client.post("/v1/users/w/merge", json={"visitor_id": VISITOR})
    async with app.services.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        for late in ("u", VISITOR):
            await raw.execute(
                "insert into events (tenant_id, ts, event_no, type, shopper_no) "
                "values ($1, now(), gen_random_uuid(), 'view', $2)",
                shop.tenant_id,
                numbers[late],
            )
        records = await raw.fetch("select now() - interval '10 minutes'")
        await settle_late(raw, records[0][0])
    found = await rows(app, shop, "select shopper_no, count(*) from events where tenant_id = $1 group by 1")
    assert found == [(numbers["w"], 3)]


async def _backup(app: Application, shop: Shop) -> dict[str, list[str]]:
    """Every row of the shop that tells of people."""
    return {
        table: [
            row for (row,) in await rows(app, shop, f"select to_jsonb(t)::text from {table} t where tenant_id = $1")
        ]
        for table in ("shopper_ids", "users", "events", "erasures")
    }


async def _restore(app: Application, shop: Shop, backup: dict[str, list[str]]) -> None:
    """Put the rows of the backup in the place of those that are there."""
    async with app.services.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        for table, kept in backup.items():
            await raw.execute(f"delete from {table} where tenant_id = $1", shop.tenant_id)
            await raw.execute(
                f"insert into {table} select r.* from unnest($1::text[]) g(row), "
                f"jsonb_populate_record(null::{table}, g.row::jsonb) r",
                kept,
            )


async def test_a_restored_backup_is_put_right(app: Application, shop: Shop) -> None:
    """Who was erased after it was made is erased again, visitors too; nobody else, and doing it again does nothing."""
    services = app.services
    await send(shop, {"type": "view", "item_id": "i", "user_id": "early"})
    await shop.client.delete("/v1/users/early")
    await send(shop, {"type": "view", "item_id": "i", "user_id": "early"})
    await send(shop, {"type": "view", "item_id": "i", "user_id": "late"})
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR})
    await send(shop, {"type": "view", "item_id": "i", "user_id": "other"})
    backup = await _backup(app, shop)
    await shop.client.post("/v1/users/late/merge", json={"visitor_id": VISITOR})
    assert (await shop.client.delete("/v1/users/late")).status_code == 204
    await _restore(app, shop, backup)
    assert await rows(app, shop, WHO) == [(0, VISITOR, 1), (1, "early", 1), (1, "late", 1), (1, "other", 1)]
    # Of another secret: nothing is known of them, and nothing is done.
    strange = await replay(services.database, services.blobs, Secret(current=b"another secret"))
    assert (strange.erased, strange.foreign) == (0, 2)
    assert len(await rows(app, shop, WHO)) == 4
    done = await replay(services.database, services.blobs, services.secret)
    assert (done.erased, done.foreign) == (2, 0)
    # `early` came back after the erasure, before the backup: that stays.
    assert await rows(app, shop, WHO) == [(1, "early", 1), (1, "other", 1)]
    again = await replay(services.database, services.blobs, services.secret)
    assert (again.erased, again.foreign) == (0, 0)


async def test_who_is_merged_with_a_restored_person_is_let_go(app: Application, shop: Shop) -> None:
    """The person is erased again; what the visitor does from then on is under the visitor's own number."""
    services = app.services
    await send(shop, {"type": "view", "item_id": "i", "user_id": "late"})
    backup = await _backup(app, shop)
    assert (await shop.client.delete("/v1/users/late")).status_code == 204
    await _restore(app, shop, backup)
    await shop.client.post("/v1/users/late/merge", json={"visitor_id": VISITOR})
    assert (await replay(services.database, services.blobs, services.secret)).erased == 1
    await services.feed.poll()
    await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR})
    assert await rows(app, shop, WHO) == [(0, VISITOR, 1)]


async def test_nobody_is_erased_whom_a_backup_could_bring_back_unseen(
    app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the object store is away, the erasure is refused whole, to be tried again."""

    async def away(*_: object, **__: object) -> None:
        raise BlobsUnavailable("The object store does not answer.")

    await send(shop, {"type": "view", "item_id": "i", "user_id": "u"})
    with monkeypatch.context() as patch:
        patch.setattr(app.services.blobs, "put", away)
        assert (await shop.client.delete("/v1/users/u")).status_code == 503
    assert await rows(app, shop, WHO) == [(1, "u", 1)]
    assert (await shop.client.delete("/v1/users/u")).status_code == 204
    assert await rows(app, shop, WHO) == []


# Segments


async def test_a_segment_finds_shoppers_by_what_they_are_and_did(app: Application, shop: Shop) -> None:
    """And holds whom the shop has put there itself."""
    people = {"a": {"country": "DE", "age": 30}, "b": {"country": "DE", "age": 50}, "c": {"country": "FR"}}
    for name, attributes in people.items():
        await shop.client.put(f"/v1/users/{name}", json={"attributes": attributes})
    await shop.client.put("/v1/users/d", json={"segments": ["germans"], "seller_id": "s"})
    await send(
        shop,
        *({"type": "purchase", "item_id": "i", "user_id": name} for name in ("a", "a", "b")),
        {"type": "purchase", "user_id": "c", "items": [{"id": "i"}, {"id": "j"}]},
    )

    async def found(tree: dict[str, Any]) -> set[str]:
        stored = await shop.client.put("/v1/segments/germans", json={"filter": tree})
        assert stored.is_success, stored.text
        services = app.services
        async with services.database.tenant_session(shop.tenant_id) as conn:
            numbers = await segments.members(conn, shop.tenant_id, "germans", now=services.clock())
            saved = await segments.list_segments(conn, shop.tenant_id)
            for number in numbers:
                assert "germans" in await segments.segments_of(
                    conn, shop.tenant_id, number, saved, now=services.clock()
                )
        names = dict(await rows(app, shop, "select shopper_no, external_id from shopper_ids where tenant_id = $1"))
        return {names[number] for number in numbers} - {"d"}

    assert await found({"eq": ["attributes.country", "DE"]}) == {"a", "b"}
    assert await found({"gt": ["attributes.age", 40]}) == {"b"}
    assert await found({"gte": ["events.purchase", 2]}) == {"a"}
    assert await found({"eq": ["events.purchase.30d", 1]}) == {"b", "c"}
    assert await found({"not": {"exists": "attributes.age"}}) == {"c"}
    assert await found({"and": [{"in": ["id", ["a", "c"]]}, {"exists": "events.purchase.7d"}]}) == {"a", "c"}
    assert await found({"or": [{"exists": "seller_id"}, {"eq": ["segments", "nobody"]}]}) == set()
    shown = (await shop.client.get("/v1/segments/germans?count=true")).json()
    assert shown["members"] == 1


async def test_segments_are_listed_and_forgotten(shop: Shop) -> None:
    """By name."""
    for name in ("b", "a"):
        stored = await shop.client.put(f"/v1/segments/{name}", json={"filter": {"exists": "seller_id"}})
        assert stored.status_code == 201
    assert [each["id"] for each in (await shop.client.get("/v1/segments")).json()["segments"]] == ["a", "b"]
    assert (await shop.client.delete("/v1/segments/a")).status_code == 204
    assert (await shop.client.get("/v1/segments/a")).json()["code"] == "segment_not_found"


@pytest.mark.parametrize(
    "tree",
    [
        {"eq": ["brand", "x"]},
        {"eq": ["events.purchase.0d", 1]},
        {"gt": ["seller_id", "x"]},
        {"eq": ["events.purchase", "x"]},
        {"eq": ["segments", "a\0b"]},
    ],
)
async def test_a_filter_of_another_grammar_is_named(shop: Shop, tree: dict[str, Any]) -> None:
    """It says which fields there are."""
    answer = await shop.client.put("/v1/segments/x", json={"filter": tree})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_filter")


async def test_two_shops_merge_their_own(app: Application, make_shop: MakeShop) -> None:
    """One visitor id in two shops is two visitors."""
    one, two = await make_shop(), await make_shop()
    for shop in (one, two):
        await send(shop, {"type": "view", "item_id": "i", "visitor_id": VISITOR})
    await one.client.post("/v1/users/u/merge", json={"visitor_id": VISITOR})
    assert await rows(app, two, WHO) == [(0, VISITOR, 1)]
