"""Tensor arithmetic of the merge methods: torch only, no files, no model names."""
