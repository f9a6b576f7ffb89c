"""The reading room: worklist entries and their counts, how a site reads, stages of a review, cases, acknowledgements"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)
SITE: dict[str, Any] = {
    "readers": (ID, "1"),
    "blind_first": (sa.Boolean(), sa.false()),
    "sample_share": (sa.Float(), "0"),
}
REVIEW: dict[str, Any] = {
    "stage": (sa.String(length=12), "verdict"),
    "saw_score": (sa.Boolean(), sa.true()),
    "saw_others": (sa.Boolean(), sa.true()),
}

# What was flagged so far, read or not, and what was read without: a verdict that was given ended the reading then.
FLAGGED = """
INSERT INTO entries (scan_id, trained_model_id, site_id, batch_id, score, rank, share, blind, readers, state, verdict,
                     first_reader_id, submitted_at, decided_at)
SELECT o.scan_id, o.trained_model_id, b.site_id, b.id, o.score, o.score, NULL, false, 1,
       CASE WHEN r.id IS NULL THEN 'unread' ELSE 'done' END, r.verdict, r.reader_id, b.submitted_at, r.at
FROM outcomes o
JOIN scans s ON s.id = o.scan_id AND s.generation = o.generation
JOIN batches b ON b.id = s.batch_id AND b.trained_model_id = o.trained_model_id
LEFT JOIN reviews r ON r.id = (SELECT max(id) FROM reviews WHERE scan_id = o.scan_id)
WHERE o.flagged OR (o.kind = 'scored' AND r.id IS NOT NULL)
"""
COUNTED = """
INSERT INTO entry_counts (site_id, trained_model_id, state, reader_id, count)
SELECT site_id, trained_model_id, state, 0, count(*) FROM entries GROUP BY site_id, trained_model_id, state
"""
TO_READ = ("trained_model_id", "site_id", "state")
READ_ONCE = ("trained_model_id", "site_id", "first_reader_id")
LISTS = {  # name -> columns, and of which entries where not of all
    "ix_entries_list": ((*TO_READ, "rank", "id"), None),
    "ix_entries_since": ((*TO_READ, "submitted_at", "id"), None),
    "ix_entries_batch": (("batch_id", "state", "rank", "id"), None),
    "ix_entries_second": ((*READ_ONCE, "rank", "id"), "state = 'second'"),
    "ix_entries_second_since": ((*READ_ONCE, "submitted_at", "id"), "state = 'second'"),
    "ix_entries_score": ((*TO_READ, "score", "id"), "NOT blind OR state = 'done'"),
    "ix_entries_repeat": (("scan_id",), "verdict = 'repeat'"),
}


def upgrade() -> None:
    """Changes the column protocol of chunks that wait: an older worker would score them and list nothing."""
    op.execute("UPDATE chunks SET protocol = 3 WHERE completed_at IS NULL")
    for name, (kind, default) in SITE.items():
        op.add_column("sites", sa.Column(name, kind, server_default=default, nullable=False))
    op.add_column("sites", sa.Column("prevalence", sa.Float(), nullable=True))
    op.add_column("web_sessions", sa.Column("second_factor", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("users", sa.Column("subject", sa.String(length=255), nullable=True))
    op.create_index(op.f("uq_users_subject"), "users", ["subject"], unique=True)
    for name, (kind, default) in REVIEW.items():
        op.add_column("reviews", sa.Column(name, kind, server_default=default, nullable=False))
    op.add_column("reviews", sa.Column("findings", sa.JSON(), nullable=True))
    op.create_index("ix_reviews_reader", "reviews", ["reader_id", "id"])
    op.create_index("ix_batches_since", "batches", ["trained_model_id", "site_id", "submitted_at"])
    _create_index("ix_outcomes_unscreened", "outcomes", ("scan_id",), "kind <> 'scored'")
    _index_identifiers("id")
    _create_entries()
    _create_records()
    op.execute(FLAGGED)
    op.execute(COUNTED)


def downgrade() -> None:
    """Loses the tables entries and entry_counts (who holds what, which cleared scans were drawn), case_steps
    (laboratory results among them) and acknowledgements; of sites the columns readers, blind_first, sample_share and
    prevalence; of reviews stage, findings, saw_score and saw_others, so that an impression counts as a verdict; of
    users subject, and of web_sessions second_factor: nobody signs in through another house."""
    for table in ("acknowledgements", "case_steps", "entry_counts", "entries"):
        op.drop_table(table)
    op.drop_index("ix_reviews_reader", "reviews")
    op.drop_index("ix_batches_since", "batches")
    op.drop_index("ix_outcomes_unscreened", "outcomes")
    _index_identifiers()
    for name in ("findings", *REVIEW):
        op.drop_column("reviews", name)
    op.drop_index(op.f("uq_users_subject"), "users")
    op.drop_column("users", "subject")
    op.drop_column("web_sessions", "second_factor")
    for name in ("prevalence", *SITE):
        op.drop_column("sites", name)


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("id", ID, nullable=False),
        sa.Column("scan_id", ID, nullable=False),
        sa.Column("trained_model_id", ID, nullable=False),
        sa.Column("site_id", ID, nullable=False),
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("rank", sa.Float(), nullable=False),
        sa.Column("share", sa.Float(), nullable=True),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("readers", ID, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=True),
        sa.Column("first_reader_id", ID, nullable=True),
        sa.Column("submitted_at", MOMENT, nullable=False),
        sa.Column("decided_at", MOMENT, nullable=True),
        sa.Column("holder_id", ID, nullable=True),
        sa.Column("held_since", MOMENT, nullable=True),
        sa.Column("held_until", sa.Float(), nullable=True),
        *_keys("entries", scan_id="scans", trained_model_id="trained_models", site_id="sites", batch_id="batches"),
        *_keys("entries", first_reader_id="users", holder_id="users"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint("scan_id", "trained_model_id", name=op.f("uq_entries_scan_id_trained_model_id")),
    )
    for name, (columns, where) in LISTS.items():
        _create_index(name, "entries", columns, where)
    op.create_table(
        "entry_counts",
        sa.Column("site_id", ID, nullable=False),
        sa.Column("trained_model_id", ID, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reader_id", ID, nullable=False),
        sa.Column("count", ID, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "trained_model_id", "state", "reader_id", name=op.f("pk_entry_counts")),
    )


def _create_records() -> None:
    op.create_table(
        "case_steps",
        sa.Column("id", ID, nullable=False),
        sa.Column("scan_id", ID, nullable=False),
        sa.Column("step", sa.String(length=20), nullable=False),
        sa.Column("result", sa.String(length=20), nullable=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("by", sa.String(length=100), nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        *_keys("case_steps", scan_id="scans"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_case_steps")),
    )
    op.create_table(
        "acknowledgements",
        sa.Column("id", ID, nullable=False),
        sa.Column("scan_id", ID, nullable=False),
        sa.Column("generation", ID, nullable=False),
        sa.Column("action", sa.String(length=20), nullable=False),
        sa.Column("by", sa.String(length=100), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        *_keys("acknowledgements", scan_id="scans"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acknowledgements")),
    )
    for table in ("case_steps", "acknowledgements"):
        op.create_index(op.f(f"ix_{table}_scan_id"), table, ["scan_id"])
        _make_append_only(table)


def _create_index(name: str, table: str, columns: tuple[str, ...], where: str | None, **more: Any) -> None:
    part: dict[str, Any] = {} if where is None else {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
    op.create_index(name, table, list(columns), **part, **more)


def _index_identifiers(*order: str) -> None:
    """Patients and studies, by the bytes of the text and within one in `order`; by the language's order without."""
    for name in ("patient", "study"):
        op.drop_index(f"ix_scans_{name}", "scans")
        ops: dict[str, Any] = {"postgresql_ops": {name: "varchar_pattern_ops"}} if order else {}
        _create_index(f"ix_scans_{name}", "scans", (name, *order), f"{name} IS NOT NULL", **ops)


def _keys(table: str, **columns: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}"))
        for column, other in columns.items()
    ]


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
