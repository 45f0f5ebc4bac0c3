"""audit

Revision ID: 20261124_08
Revises: 20261124_07
"""

import sqlalchemy as sa
from alembic import op

revision = '20261124_08'
down_revision = '20261124_07'
branch_labels = None
depends_on = None

_SQLITE = (
    """CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER audit_kept BEFORE DELETE ON audit
    WHEN OLD.created_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 days')
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$""",
    'CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION audit_refuse()',
    """CREATE TRIGGER audit_kept BEFORE DELETE ON audit FOR EACH ROW
    WHEN (OLD.created_at > CURRENT_TIMESTAMP - INTERVAL '30 days') EXECUTE FUNCTION audit_refuse()""",
)


def upgrade() -> None:
    op.create_table('audit',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('project_id', sa.String(length=40), nullable=False),
    sa.Column('key_id', sa.String(length=40), nullable=True),
    sa.Column('action', sa.String(length=60), nullable=False),
    sa.Column('target', sa.String(length=100), nullable=True),
    sa.Column('address', sa.String(length=100), nullable=True),
    sa.Column('status', sa.Integer(), nullable=True),
    sa.Column('code', sa.String(length=40), nullable=True),
    sa.Column('request_id', sa.String(length=64), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['project_id'], ['project.id'], name=op.f('fk_audit_project_id_project')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit'))
    )
    op.create_index('ix_audit_project', 'audit', ['project_id', 'id'], unique=False)
    op.create_index('ix_audit_created', 'audit', ['created_at'], unique=False)
    for statement in _POSTGRESQL if op.get_bind().dialect.name == 'postgresql' else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table('audit')
    if op.get_bind().dialect.name == 'postgresql':
        op.execute('DROP FUNCTION audit_refuse()')
