"""limits of one project

Revision ID: 20261124_15
Revises: 20261124_14
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '20261124_15'
down_revision = '20261124_14'
branch_labels = None
depends_on = None


def upgrade() -> None:
    kind = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql')
    op.add_column('project', sa.Column('limits', kind, nullable=True))


def downgrade() -> None:
    op.drop_column('project', 'limits')
