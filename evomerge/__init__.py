"""evomerge finds the best way to merge language models, and proves that the merge is better."""
