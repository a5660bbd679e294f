"""`./muster demo`: a fleet on this machine, and a prompt that it answers."""
