"""checkpoints, and what is asked of a job

Revision ID: 20261124_05
Revises: 20261124_09
"""

import sqlalchemy as sa
from alembic import op

revision = '20261124_05'
down_revision = '20261124_09'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('checkpoint',
    sa.Column('job_id', sa.String(length=40), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('phase', sa.String(length=30), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('step', sa.Integer(), nullable=False),
    sa.Column('steps', sa.Integer(), nullable=False),
    sa.Column('loss', sa.Double(), nullable=True),
    sa.Column('best', sa.Boolean(), nullable=False),
    sa.Column('points', sa.Integer(), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('storage_key', sa.String(length=300), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], name=op.f('fk_checkpoint_job_id_job')),
    sa.PrimaryKeyConstraint('job_id', 'attempt', 'number', name=op.f('pk_checkpoint'))
    )
    # Columns alone: SQLite adds them in place, and the release before this one goes on writing rows meanwhile.
    op.add_column('job', sa.Column('cloned_from', sa.String(length=40), nullable=True))
    op.add_column('job', sa.Column('wish', sa.String(length=10), nullable=True))
    op.add_column('job_metric', sa.Column('position', sa.Integer(), server_default='0', nullable=False))


def downgrade() -> None:
    op.drop_column('job_metric', 'position')
    op.drop_column('job', 'wish')
    op.drop_column('job', 'cloned_from')
    op.drop_table('checkpoint')
