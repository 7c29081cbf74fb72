"""UUIDv7."""

from uuid import UUID

from infra.ids import request_id, uuid7


def test_ids_are_version_7_and_sort_by_time() -> None:
    """RFC 9562: version 7, variant 10, milliseconds first."""
    made = [uuid7() for _ in range(1000)]
    assert {identifier.version for identifier in made} == {7}
    assert {identifier.variant for identifier in made} == {"specified in RFC 4122"}
    times = [identifier.int >> 80 for identifier in made]
    assert times == sorted(times)
    assert len(set(made)) == 1000


def test_an_exchange_without_a_sane_name_gets_a_new_one() -> None:
    """A UUIDv7 as text; what the client calls it is kept where a log and a header can hold it."""
    for given in (b"", b"short", b"x" * 65, b"with space", b"-begins-so", b"new\nline-1", "ünsinn-1".encode()):
        made = UUID(request_id(given))
        assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert request_id(b"trace-1234.a_b") == "trace-1234.a_b"
