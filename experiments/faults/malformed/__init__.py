"""Malformed inputs and what the command line says to them."""
