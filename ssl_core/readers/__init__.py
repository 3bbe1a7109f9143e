"""The people who read: who reads what, how long it takes, how far they agree."""
