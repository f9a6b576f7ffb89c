"""Blame only from workers that proved sound: vouched, the claiming process, the protocol; golden scores"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    # Native ALTERs, also on SQLite: a chunk table of a million rows is not copied.
    op.add_column("chunks", sa.Column("vouched", number, server_default="0", nullable=False))
    op.add_column("chunks", sa.Column("pid", number, nullable=True))
    op.add_column("chunks", sa.Column("protocol", number, server_default="1", nullable=False))
    op.create_table(
        "golden_scores",
        sa.Column("trained_model_id", number, nullable=False),
        sa.Column("engine", sa.String(length=40), nullable=False),
        sa.Column("precision", sa.String(length=20), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("distance", sa.Float(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["trained_model_id"], ["trained_models.id"], name=op.f("fk_golden_scores_trained_model_id")
        ),
        sa.PrimaryKeyConstraint("trained_model_id", "engine", "precision", name=op.f("pk_golden_scores")),
    )


def downgrade() -> None:
    """Loses the table golden_scores (the next sound worker measures them again) and, of chunks, the columns vouched, pid
    and protocol: who vouched for a blame is forgotten, so a scan may cost one more worker before it fails."""
    op.drop_table("golden_scores")
    for column in ("protocol", "pid", "vouched"):
        op.drop_column("chunks", column)
