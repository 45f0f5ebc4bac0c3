"""secrets of a project

Revision ID: 20261124_16
Revises: 20261124_15
"""

import sqlalchemy as sa
from alembic import op

revision = '20261124_16'
down_revision = '20261124_15'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'secret',
        sa.Column('project_id', sa.String(length=40), nullable=False),
        sa.Column('name', sa.String(length=63), nullable=False),
        sa.Column('sealed', sa.Text(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(['project_id'], ['project.id'], name=op.f('fk_secret_project_id_project')),
        sa.PrimaryKeyConstraint('project_id', 'name', name=op.f('pk_secret')),
    )


def downgrade() -> None:
    op.drop_table('secret')
