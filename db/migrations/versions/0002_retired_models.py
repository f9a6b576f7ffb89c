"""Retired models; a worklist of one trained model"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FLAGGED = sa.text("flagged")


def upgrade() -> None:
    op.create_table(
        "retirements",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("trained_model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("by", sa.String(length=100), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["trained_model_id"], ["trained_models.id"], name=op.f("fk_retirements_trained_model_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retirements")),
        sa.UniqueConstraint("trained_model_id", name=op.f("uq_retirements_trained_model_id")),
    )
    _make_append_only("retirements")
    _index_flagged("trained_model_id", "score", "scan_id")


def downgrade() -> None:
    """Loses the table retirements: who retired which model and why stays in the audit log alone, and a retired model
    may be activated again."""
    _index_flagged("score", "scan_id")
    op.drop_table("retirements")


def _index_flagged(*columns: str) -> None:
    op.drop_index("ix_outcomes_flagged", "outcomes")
    op.create_index("ix_outcomes_flagged", "outcomes", list(columns), sqlite_where=FLAGGED, postgresql_where=FLAGGED)


def _make_append_only(table: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION append_only()"
    )
