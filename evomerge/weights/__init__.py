"""Where tensors come from and go to; importing this package imports no torch."""
