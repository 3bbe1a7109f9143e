"""What happened, never changed: the ledger, its tables, and what counts as true of its labels."""
