"""A copy of a run in PostgreSQL: kept by its driver, watched by anybody, restored elsewhere."""
