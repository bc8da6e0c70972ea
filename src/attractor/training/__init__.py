"""Training: the loop, and what it is made of. `attractor.train`, in `runs`, is the way in.

Nothing is imported here, so that processes that only make crops need not load Lightning.
"""
