"""Custom domains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From proxy tokens and policies."""
    op.create_table(
        "domains",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("certificate_state", sa.String(32), nullable=True),
        sa.Column("certificate_detail", sa.Text(), nullable=True),
        sa.Column("certificate_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_domains"),
    )


def downgrade() -> None:
    """Back to proxy tokens and policies."""
    op.drop_table("domains")
