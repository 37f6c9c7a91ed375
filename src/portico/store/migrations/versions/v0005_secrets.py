"""Secrets, and the proof of the key that entries are sealed with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From calls. What lies in clear is sealed when the store is opened, which has the key."""
    op.create_table(
        "secrets",
        sa.Column("environment", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("variables", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("environment", "name", name="pk_secrets"),
    )
    op.create_table(
        "proofs",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_proofs"),
    )


def downgrade() -> None:
    """Back to calls; what is sealed stays so."""
    op.drop_table("proofs")
    op.drop_table("secrets")
