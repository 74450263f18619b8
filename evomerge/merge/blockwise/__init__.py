"""The kernels in torch, block by block: the definition, and what runs where nothing is compiled."""
