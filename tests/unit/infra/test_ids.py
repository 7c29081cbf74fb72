"""UUIDv7."""

from infra.ids import uuid7


def test_ids_are_version_7_and_sort_by_time() -> None:
    """RFC 9562: version 7, variant 10, milliseconds first."""
    made = [uuid7() for _ in range(1000)]
    assert {identifier.version for identifier in made} == {7}
    assert {identifier.variant for identifier in made} == {"specified in RFC 4122"}
    times = [identifier.int >> 80 for identifier in made]
    assert times == sorted(times)
    assert len(set(made)) == 1000
