"""`python -m muster.bench`: loads a fleet with many clients, and says how it bore it."""
