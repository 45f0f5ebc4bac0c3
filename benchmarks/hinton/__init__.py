"""Section 3 of Hinton, Vinyals and Dean 2015 (arXiv:1503.02531), "Preliminary experiments on MNIST", as jobs.

Read `protocol.py` first: it holds every setting. `mnist.py` makes the data, `jobs.py` runs one job, `unseen.py` and
`priors.py` correct the bias of digits the student never saw, `figures.py` puts the paper's figures beside ours.
"""
