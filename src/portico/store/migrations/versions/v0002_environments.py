"""Environments; what was there before is in `main`."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From apps alone."""
    environments = op.create_table(
        "environments",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("web_suffix", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_environments"),
        sa.UniqueConstraint("web_suffix", name="uq_environments_web_suffix"),
    )
    op.bulk_insert(environments, [{"name": "main", "web_suffix": "", "created_at": time.time()}])


def downgrade() -> None:
    """Back to apps alone."""
    op.drop_table("environments")
