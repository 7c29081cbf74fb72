"""What the log keeps of candidates."""

import msgspec

from api.recommend.sampling import MAX_BYTES, ONE_IN, encode_candidates, sampled
from infra.ids import uuid7
from tenants.answers import StoredCandidate
from tenants.retrieval.wanted import Hit


def _hit(item_no: int, because: str = "i") -> Hit:
    return Hit(item_no, "x", None, 1.5, None, None, 0.123456, None, (), None, None, (("graph", 0.25),), because)


def test_the_sample_is_told_by_the_id() -> None:
    """About one in a hundred, the same for ever."""
    ids = [str(uuid7()) for _ in range(20_000)]
    drawn = [name for name in ids if sampled(name)]
    assert 0.5 < len(drawn) / len(ids) * ONE_IN < 1.6
    assert all(sampled(name) for name in drawn)


def test_candidates_are_bounded_in_bytes() -> None:
    """The last go first; what stays can be read."""
    encoded = encode_candidates([_hit(number, "b" * 128) for number in range(500)], evidence=True)
    kept = msgspec.json.decode(encoded, type=list[StoredCandidate])
    assert MAX_BYTES * 0.98 < len(encoded) <= MAX_BYTES
    assert [each.i for each in kept] == list(range(len(kept)))


def test_a_candidate_is_kept_with_its_features() -> None:
    """Cut to 0..1 and short; without evidence where that would tell of a session."""
    (kept,) = msgspec.json.decode(encode_candidates([_hit(3)], evidence=False), type=list[StoredCandidate])
    assert kept == StoredCandidate(i=3, s=10_000, p={"graph": 0.25}, t=0.1235)
