"""Proposal-free instance segmentation: every object of an image, each on its own."""
