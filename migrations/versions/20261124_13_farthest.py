"""how far a job ever came

Revision ID: 20261124_13
Revises: 20261124_11
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '20261124_13'
down_revision = '20261124_11'
branch_labels = None
depends_on = None


def upgrade() -> None:
    kind = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql')
    op.add_column('job', sa.Column('farthest', kind, nullable=True))


def downgrade() -> None:
    op.drop_column('job', 'farthest')
