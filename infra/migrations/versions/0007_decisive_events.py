"""The few events of a shopper that count for as long as they are kept, found without reading all the others."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# What was bought or disliked, and what lies in the cart: asked over all months, for nearly every list of a shopper.
# Views and impressions, the many, are not in it, so that it costs their storing nothing.
_INDEX = """
create index events_decisive on events (tenant_id, shopper_no, type, item_no, ts) include (flags)
where type in ('purchase', 'dislike', 'add_to_cart', 'remove_from_cart')
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.execute(_INDEX)
