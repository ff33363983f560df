"""Schema 1: requests, what they found, corpora, models, and events that are only ever added."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the tables, and the triggers that keep history as it is."""
    text = sa.Text
    op.create_table(
        "requests",
        sa.Column("id", text, primary_key=True),
        sa.Column("who", text, nullable=False),
        sa.Column("what", text),
        sa.Column("reason", text, nullable=False),
        sa.Column("note", text),
        sa.Column("received", text, nullable=False),
        sa.Column("due", text, nullable=False),
        sa.Column("state", text, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("request", text),
        sa.Column("at", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("facts", text, nullable=False),
        sa.Column("previous", text, nullable=False),
        sa.Column("digest", text, nullable=False),
    )
    op.create_table("corpora", sa.Column("name", text, primary_key=True), sa.Column("record", text, nullable=False))
    op.create_table("generations", sa.Column("number", sa.Integer, primary_key=True), sa.Column("record", text, nullable=False))
    op.create_table("kept", sa.Column("key", text, primary_key=True), sa.Column("value", text, nullable=False))
    op.create_table(
        "hits",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("request", text, nullable=False, index=True),
        sa.Column("record", text, nullable=False),
    )
    for verb in ("UPDATE", "DELETE"):
        said = "history is only ever added to"
        op.execute(f"CREATE TRIGGER events_no_{verb.lower()} BEFORE {verb} ON events BEGIN SELECT RAISE(ABORT, '{said}'); END")
