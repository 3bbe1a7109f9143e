"""Pseudo-labels: which are kept, how many of them blind reads find right, and when to stop."""
