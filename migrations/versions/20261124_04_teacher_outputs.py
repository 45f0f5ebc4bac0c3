"""teacher outputs

Revision ID: 20261124_04
Revises: 20261124_03
"""

import sqlalchemy as sa
from alembic import op

revision = '20261124_04'
down_revision = '20261124_03'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('teacher_output',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('project_id', sa.String(length=40), nullable=False),
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('status', sa.String(length=10), nullable=False),
    sa.Column('dataset_id', sa.String(length=40), nullable=False),
    sa.Column('teacher', sa.String(length=200), nullable=False),
    sa.Column('teacher_model_id', sa.String(length=40), nullable=True),
    sa.Column('job_id', sa.String(length=40), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('part', sa.String(length=10), nullable=False),
    sa.Column('views', sa.Integer(), nullable=False),
    sa.Column('top_k', sa.Integer(), nullable=True),
    sa.Column('rows', sa.Integer(), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.Column('storage_key', sa.String(length=300), nullable=True),
    sa.Column('hits', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("(status = 'ready') = (storage_key IS NOT NULL)", name=op.f('ck_teacher_output_ready_has_file')),
    sa.CheckConstraint("status IN ('making', 'ready')", name=op.f('ck_teacher_output_known_status')),
    sa.ForeignKeyConstraint(['dataset_id'], ['dataset.id'], name=op.f('fk_teacher_output_dataset_id_dataset')),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], name=op.f('fk_teacher_output_job_id_job')),
    sa.ForeignKeyConstraint(['project_id'], ['project.id'], name=op.f('fk_teacher_output_project_id_project')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_output'))
    )
    op.create_index('ix_teacher_output_project_key', 'teacher_output', ['project_id', 'key'], unique=True)
    op.create_table('teacher_output_use',
    sa.Column('output_id', sa.String(length=40), nullable=False),
    sa.Column('job_id', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], name=op.f('fk_teacher_output_use_job_id_job')),
    sa.ForeignKeyConstraint(['output_id'], ['teacher_output.id'], name=op.f('fk_teacher_output_use_output_id_teacher_output')),
    sa.PrimaryKeyConstraint('output_id', 'job_id', name=op.f('pk_teacher_output_use'))
    )


def downgrade() -> None:
    op.drop_table('teacher_output_use')
    op.drop_table('teacher_output')
