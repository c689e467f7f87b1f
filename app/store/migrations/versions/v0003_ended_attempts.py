"""The attempts of the last hour can be found among very many."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    condition = sa.text("ended_at IS NOT NULL")
    op.create_index("ix_attempts_ended", "attempts", ["ended_at"], sqlite_where=condition, postgresql_where=condition)
