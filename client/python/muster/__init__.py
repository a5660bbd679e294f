"""A client of Muster.

    with Fleet("127.0.0.1:41207") as fleet, fleet.replica(0) as replica:
        for token in replica.generate([1, 2, 3], max_tokens=8):
            print(token.id)

It needs the generated stubs (`./muster build` puts them into out/python) on the path.
"""
