"""Schema 2: the marks of rows (digests under the salt of a request), and history that refuses an event in the wrong place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add the table of marks and the trigger on new events."""
    op.create_table(
        "marks",
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("mark", sa.Text, primary_key=True),
    )
    op.execute(
        "CREATE TRIGGER events_in_order BEFORE INSERT ON events "
        "WHEN NEW.number IS NOT (SELECT COALESCE(MAX(number), 0) + 1 FROM events) "
        "OR NEW.previous IS NOT COALESCE((SELECT digest FROM events ORDER BY number DESC LIMIT 1), NEW.previous) "
        "BEGIN SELECT RAISE(ABORT, 'an event follows the last one'); END"
    )
