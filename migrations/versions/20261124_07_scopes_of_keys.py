"""scopes of keys

Revision ID: 20261124_07
Revises: 20261124_05
"""

import sqlalchemy as sa
from alembic import op

revision = '20261124_07'
down_revision = '20261124_05'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The defaults are for keys there are, and for the release before this one, which goes on while it is replaced.
    with op.batch_alter_table('api_key', schema=None) as batch_op:
        batch_op.add_column(sa.Column('scope', sa.String(length=10), server_default='admin', nullable=False))
        batch_op.add_column(sa.Column('start', sa.String(length=12), server_default='shk_', nullable=False))
        batch_op.add_column(sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column('replaced_by', sa.String(length=40), nullable=True))
        batch_op.create_check_constraint(op.f('ck_api_key_known_scope'), "scope IN ('read', 'write', 'admin')")


def downgrade() -> None:
    with op.batch_alter_table('api_key', schema=None) as batch_op:
        batch_op.drop_constraint(op.f('ck_api_key_known_scope'), type_='check')
        for name in ('replaced_by', 'expires_at', 'last_used_at', 'start', 'scope'):
            batch_op.drop_column(name)
