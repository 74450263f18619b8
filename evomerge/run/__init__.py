"""A run: one directory, one driver, many workers, one ledger."""
