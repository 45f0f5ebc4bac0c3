"""retention

Revision ID: 20261124_09
Revises: 20261124_04
"""

import sqlalchemy as sa
from alembic import op

revision = '20261124_09'
down_revision = '20261124_04'
branch_labels = None
depends_on = None

_MOMENTS = (
    *((table, column) for table in ('job', 'dataset', 'model') for column in ('deleted_at', 'purge_at', 'purging_at')),
    *((table, 'missing_at') for table in ('dataset', 'model', 'artifact')),
)


def upgrade() -> None:
    # All may be null: the release before this one goes on writing rows while it is replaced.
    for table, column in _MOMENTS:
        op.add_column(table, sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    op.add_column('model', sa.Column('former_job_id', sa.String(length=40), nullable=True))
    op.create_index('ix_job_dataset', 'job', ['dataset_id'])
    op.create_index(
        'ix_job_trash',
        'job',
        ['purge_at'],
        sqlite_where=sa.text('deleted_at IS NOT NULL'),
        postgresql_where=sa.text('deleted_at IS NOT NULL'),
    )
    op.create_table('storage_hold',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('reason', sa.String(length=100), nullable=False),
    sa.Column('until', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_storage_hold'))
    )


def downgrade() -> None:
    op.drop_table('storage_hold')
    op.drop_index('ix_job_trash', 'job')
    op.drop_index('ix_job_dataset', 'job')
    op.drop_column('model', 'former_job_id')
    for table, column in reversed(_MOMENTS):
        op.drop_column(table, column)
