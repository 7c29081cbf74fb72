"""Proof of work: what holds, and what does not."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.secret import Secret
from tenants.accounts.attempts import network_of
from tenants.accounts.proof import LIFE_S, BadProof, check_proof, make_challenge, solve

SECRET = b"s" * 32
BELIEVED = Secret(current=b"n" * 32, others=(SECRET,))
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("bits", [0, 1, 7, 8, 9, 12])
def test_a_solved_challenge_holds(bits: int) -> None:
    """Until its time is over; its name is its own."""
    challenge = make_challenge(SECRET, "signup", bits, now=NOW)
    proof = solve(challenge)
    digest = hashlib.sha256(proof.encode()).digest()
    assert int.from_bytes(digest) < 1 << (256 - bits)
    paid = check_proof(BELIEVED, proof, "signup", now=NOW + timedelta(seconds=LIFE_S - 1))
    assert paid.bits == bits
    other = make_challenge(SECRET, "signup", bits, now=NOW)
    assert check_proof(BELIEVED, solve(other), "signup", now=NOW).name != paid.name
    with pytest.raises(BadProof):
        check_proof(BELIEVED, proof, "signup", now=NOW + timedelta(seconds=LIFE_S))


@given(st.text(max_size=300))
def test_no_text_is_a_proof_by_chance(text: str) -> None:
    """It is refused, and nothing breaks."""
    with pytest.raises(BadProof):
        check_proof(BELIEVED, text, "signup", now=NOW)


@given(st.integers(0, 200), st.sampled_from("AB_-.:0"))
def test_a_changed_challenge_is_nobodys(at: int, letter: str) -> None:
    """Neither its difficulty nor its end can be made easier."""
    proof = solve(make_challenge(SECRET, "signup", 1, now=NOW))
    body = proof.rpartition(":")[0]
    changed = body[: at % len(body)] + letter + body[at % len(body) + 1 :]
    if changed != body:
        with pytest.raises(BadProof):
            check_proof(BELIEVED, f"{changed}:0", "signup", now=NOW)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", "unknown"),
        ("unix", "unknown"),
    ],
)
def test_an_address_counts_for_its_network(address: str, network: str) -> None:
    """What a household or an office gets from its provider."""
    assert network_of(address) == network
