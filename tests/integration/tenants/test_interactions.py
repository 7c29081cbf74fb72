"""What an evaluation reads of a tenant."""

import numpy as np
import pytest

from tenants.learned.interactions import load_vectors
from tenants.vectors.form import halfvec_text
from tests.integration.tenants.conftest import make_tenant
from tests.integration.tenants.sources.conftest import Floor, floor

pytestmark = pytest.mark.anyio
__all__ = ["floor", "make_tenant"]


async def test_the_vectors_are_those_that_serve(floor: Floor) -> None:
    """By the item's own id, text and photos apart, at length 1; n-grams beside texts; 0 where there is none."""
    generation = floor.tenant.generation
    text, image, size = generation.text.dim, generation.image.dim, generation.text.dim + generation.image.dim
    spaces = [(generation.text.space_id, generation.image.space_id), (generation.ngrams.space_id, 0)]
    await floor.execute(
        "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
        f"select 0, $1, {generation.layout_id}, r.n, r.t, r.i, r.v::halfvec "
        "from unnest($2::int4[], $3::int4[], $4::int4[], $5::text[]) r(n, t, i, v)",
        floor.numbers[:2],
        [pair[0] for pair in spaces],
        [pair[1] for pair in spaces],
        [halfvec_text(np.full(size, 0.5, np.float32)), halfvec_text(np.r_[np.full(text, 0.5), np.zeros(image)])],
    )
    async with floor.database.tenant_session(floor.tenant.tenant_id) as conn:
        found = await load_vectors(conn, floor.tenant)
    assert found.ids == ["0", "1"]
    assert found.text_weight == 0.5
    assert found.spaces["image"] == generation.image.name
    np.testing.assert_allclose(np.linalg.norm(found.text, axis=1), 1, rtol=1e-5)
    assert found.text[0, :text].all()
    assert not found.text[0, text:].any()
    assert not found.text[1, :text].any()
    assert found.image[0].all()
    assert not found.image[1].any()
