"""What a score came of, and from which threshold it stands: not computed twice, and looked at again where need be"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COLUMNS: dict[str, Any] = {
    "holds_from": sa.Float(),
    "pixels_sha256": sa.String(length=64),
    "preprocessing": sa.String(length=20),
    "recipe": sa.String(length=64),
    "reused_from": ID,
}
COMPUTED = sa.text("pixels_sha256 IS NOT NULL AND reused_from IS NULL")


def upgrade() -> None:
    """Changes the column protocol of chunks that wait: an older worker would not keep what its scores stand on."""
    op.execute("UPDATE chunks SET protocol = 4 WHERE completed_at IS NULL")
    for name, kind in COLUMNS.items():
        op.add_column("outcomes", sa.Column(name, kind, nullable=True))
    op.create_index(
        "ix_outcomes_pixels", "outcomes", ["pixels_sha256"], sqlite_where=COMPUTED, postgresql_where=COMPUTED
    )


def downgrade() -> None:
    """Loses, of outcomes, holds_from (a lower threshold flags by what int8 alone said), pixels_sha256, preprocessing,
    recipe and reused_from (every score is computed anew). Changes the column protocol of chunks that wait."""
    op.drop_index("ix_outcomes_pixels", "outcomes")
    for name in reversed(COLUMNS):
        op.drop_column("outcomes", name)
    op.execute("UPDATE chunks SET protocol = 3 WHERE completed_at IS NULL")
