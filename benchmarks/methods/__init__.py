"""Every distillation method on the same task, against plain `kd` and against the student alone.

Read `setting.py` first: data, networks and training. `conditions.py` lists what is compared, `jobs.py` runs one job,
`paired.py` is the test, `table.py` sets the figures side by side.
"""
