"""Three ways to run workers behind one Protocol: in this process, on this machine, on a cluster."""
