"""What a person sees of a run, during it and afterwards."""
