"""Proxy tokens and policies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From secrets."""
    op.create_table(
        "proxy_tokens",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.Column("environments", sa.Text(), nullable=False),
        sa.Column("endpoints", sa.Text(), nullable=False),
        sa.Column("rate_limit", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_proxy_tokens"),
    )
    op.create_table(
        "policies",
        sa.Column("environment", sa.String(64), nullable=False),
        sa.Column("app", sa.String(64), nullable=False),
        sa.Column("function", sa.String(128), nullable=False),
        sa.Column("setting", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("environment", "app", "function", "setting", name="pk_policies"),
    )


def downgrade() -> None:
    """Back to secrets."""
    op.drop_table("policies")
    op.drop_table("proxy_tokens")
