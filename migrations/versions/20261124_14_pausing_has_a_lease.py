"""a job that is pausing has a lease too

Revision ID: 20261124_14
Revises: 20261124_13
"""

from alembic import op

revision = '20261124_14'
down_revision = '20261124_13'
branch_labels = None
depends_on = None

# Nothing would ever take such a row back: with a lease that is over, the reconciler does.
MEND = "UPDATE job SET lease_until = CURRENT_TIMESTAMP WHERE status = 'pausing' AND lease_until IS NULL"
MOMENTS = {'insert': 'INSERT', 'update': 'UPDATE OF status, lease_until'}


def upgrade() -> None:
    # The release before gives each job it pauses a lease, and so goes on writing.
    if op.get_bind().dialect.name == 'postgresql':
        # The lock first, and the one the change needs: no row turns wrong between, and nobody waits for us who holds us up.
        op.execute('LOCK TABLE job IN ACCESS EXCLUSIVE MODE')
        op.execute(MEND)
        _replace("'running', 'pausing', 'cancelling'")
        return
    op.execute(MEND)
    # SQLite changes a CHECK only with a new table under the name of the old one, which others refer to.
    for name, moment in MOMENTS.items():
        op.execute(
            f"CREATE TRIGGER job_pausing_has_lease_{name} BEFORE {moment} ON job "
            "WHEN NEW.status = 'pausing' AND NEW.lease_until IS NULL "
            "BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: ck_job_active_has_lease'); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == 'postgresql':
        _replace("'running', 'cancelling'")
        return
    for name in MOMENTS:
        op.execute(f'DROP TRIGGER job_pausing_has_lease_{name}')


def _replace(statuses: str) -> None:
    op.execute('ALTER TABLE job DROP CONSTRAINT ck_job_active_has_lease')
    op.execute(
        'ALTER TABLE job ADD CONSTRAINT ck_job_active_has_lease '
        f'CHECK (status NOT IN ({statuses}) OR lease_until IS NOT NULL)'
    )
