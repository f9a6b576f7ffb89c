"""One-time passwords: apps, recovery codes, sign-ins that wait for a code"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("web_sessions", sa.Column("awaits_code", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "authenticators",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("nonce", sa.String(length=32), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_step", ID, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_authenticators_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authenticators")),
    )
    op.create_index(op.f("ix_authenticators_user_id"), "authenticators", ["user_id"])
    op.create_table(
        "recovery_codes",
        sa.Column("id", ID, nullable=False),
        sa.Column("authenticator_id", ID, nullable=False),
        sa.Column("code_sha256", sa.String(length=64), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["authenticator_id"], ["authenticators.id"], name=op.f("fk_recovery_codes_authenticator_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_codes")),
    )
    op.create_index(op.f("ix_recovery_codes_authenticator_id"), "recovery_codes", ["authenticator_id"])


def downgrade() -> None:
    """Loses the tables authenticators and recovery_codes (every one-time-password app must be enrolled anew) and the
    column awaits_code; sign-ins that wait for their code are ended (ended_at)."""
    # A half-done sign-in must not become a whole one under the older code, which does not know the difference.
    op.execute("UPDATE web_sessions SET ended_at = CURRENT_TIMESTAMP WHERE awaits_code AND ended_at IS NULL")
    op.drop_table("recovery_codes")
    op.drop_table("authenticators")
    op.drop_column("web_sessions", "awaits_code")
