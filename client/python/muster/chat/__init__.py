"""`python -m muster.chat`: a conversation in a terminal."""
