"""Proposals: strategies that see genotypes and fitness, and nothing else."""
