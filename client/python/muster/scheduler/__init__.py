"""Continuous batching on top of the client: `Scheduler` for one replica, `Router` for all.

    async with Fleet(address) as fleet, Router(fleet) as router:
        async for piece in router.submit(Request(prompt), tokenizer.stream(stop=["\\n\\n"])):
            print(piece.text, end="")

The policy is in batcher.py, which calls nothing and knows no clock; scheduler.py drives it.
"""

from muster.scheduler.generation import Generation, Piece
from muster.scheduler.request import Finish, Request
from muster.scheduler.router import Router
from muster.scheduler.scheduler import Options, Scheduler, Statistics

__all__ = [
    "Finish", "Generation", "Options", "Piece", "Request", "Router", "Scheduler", "Statistics"]
