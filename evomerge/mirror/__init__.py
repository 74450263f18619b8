"""A run as an Optuna study, for dashboards: written from the ledger, never read by a search."""
