"""The plan of an organisation, from those of its shops."""

import pytest

from billing.organisations import organisation_plan, room_check
from billing.quotas import QuotaReached


@pytest.mark.parametrize(
    ("plans", "name"),
    [
        ([], "free"),
        (["free", "free"], "free"),
        (["free", "pro"], "pro"),
        (["enterprise", "pro", "free"], "enterprise"),
        (["gone", "free"], "free"),
    ],
)
def test_the_most_generous_plan_holds(plans: list[str], name: str) -> None:
    """Of a shop whose plan is no more, the smallest; of no shop, too."""
    assert organisation_plan("plans", plans).name == name


@pytest.mark.parametrize("meter", ["members", "shops"])
def test_under_a_licence_nothing_is_refused(meter: str) -> None:
    """Whatever the rows say."""
    assert organisation_plan("licence", ["free"]).name == "unlimited"
    room_check("licence")(["free"], meter, 1_000)  # type: ignore[arg-type]


def test_a_refusal_names_the_plan_that_has_more_and_what_makes_room() -> None:
    """In words for members, and others for shops."""
    room_check("plans")(["free"], "members", 1)
    with pytest.raises(QuotaReached, match=r"includes 2 members.*withdraw one or remove a member.*plan pro has more"):
        room_check("plans")(["free"], "members", 2)
    with pytest.raises(QuotaReached, match=r"includes 1 shop;.*Delete one.*plan pro has more"):
        room_check("plans")(["free"], "shops", 1)
    room_check("plans")(["enterprise"], "shops", 1_000)
