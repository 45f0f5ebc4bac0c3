"""scheduling

Revision ID: 20261124_11
Revises: 20261124_08
"""

import sqlalchemy as sa
from alembic import op

revision = '20261124_11'
down_revision = '20261124_08'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The release before this one goes on writing rows while it is replaced: all may be null, or have a default.
    op.add_column('job', sa.Column('turn_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('job', sa.Column('needs_cuda', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('job', sa.Column('needs_memory_bytes', sa.BigInteger(), server_default='0', nullable=False))
    op.add_column('project', sa.Column('served_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('worker', sa.Column('cuda', sa.Boolean(), nullable=True))
    op.add_column('worker', sa.Column('memory_bytes', sa.BigInteger(), nullable=True))
    op.add_column('worker', sa.Column('cores', sa.Integer(), nullable=True))


def downgrade() -> None:
    for table, column in (
        ('worker', 'cores'),
        ('worker', 'memory_bytes'),
        ('worker', 'cuda'),
        ('project', 'served_at'),
        ('job', 'needs_memory_bytes'),
        ('job', 'needs_cuda'),
        ('job', 'turn_at'),
    ):
        op.drop_column(table, column)
