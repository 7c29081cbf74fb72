"""Order and addresses of photos."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.db import TenantId
from infra.secret import Secret
from tenants.catalog.photos import PhotoNotFound, by_position, photo_path, read_photo_token

_SECRET = b"s" * 32
_TENANT = TenantId(UUID(int=7))


def test_an_upload_replaces_the_address_at_its_position() -> None:
    """Uploads beyond the addresses follow them in order."""
    assert by_position(["a", "b"], {1: "B", 7: "H", 4: "E"}) == ["a", "B", "E", "H"]


def test_a_photo_path_opens_one_photo() -> None:
    """The token names tenant and photo, and only our secret makes it."""
    path = photo_path(_SECRET, _TENANT, "ab" * 32)
    token = path.removeprefix("/photos/")
    assert read_photo_token(Secret(current=_SECRET), token) == (_TENANT, "ab" * 32)
    with pytest.raises(PhotoNotFound):
        read_photo_token(Secret(current=b"t" * 32), token)


@given(st.text(max_size=120))
def test_no_made_up_token_opens_anything(token: str) -> None:
    """Any other text is simply not found."""
    with pytest.raises(PhotoNotFound):
        read_photo_token(Secret(current=_SECRET), token)
