"""uploaded teachers

Revision ID: 20261124_03
Revises: 20261124_02
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '20261124_03'
down_revision = '20261124_02'
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql')
    # The defaults are for the release before this one, which goes on writing rows while it is replaced.
    with op.batch_alter_table('model', schema=None) as batch_op:
        batch_op.add_column(sa.Column('format', sa.String(length=20), server_default='stillhouse', nullable=False))
        batch_op.add_column(sa.Column('notes', json, server_default='[]', nullable=False))
        batch_op.alter_column('job_id', existing_type=sa.String(length=40), nullable=True)


def downgrade() -> None:
    # What was uploaded has no place in the tables of before.
    op.execute('DELETE FROM model WHERE job_id IS NULL')
    with op.batch_alter_table('model', schema=None) as batch_op:
        batch_op.alter_column('job_id', existing_type=sa.String(length=40), nullable=False)
        batch_op.drop_column('notes')
        batch_op.drop_column('format')
