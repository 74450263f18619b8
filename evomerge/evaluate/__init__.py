"""Scoring a model on lm-eval tasks, item by item."""
