"""The endurance test: ``make soak``, or ``python -m tests.soak --help``.

All four adapters live through lap after lap, at the same time. In a lap each has a new pool on its own real server,
behind a proxy. Borrowers ask questions, and most of them are cancelled at some moment. Meanwhile, round after round,
something happens to the server or the network (`tests.troubles`) and to the pool itself (`_changes`), both at once.
After each round the pool must serve at full size; after each lap, which ends with borrowers still at work, nothing may
be left of it. The end is an account (`_account`).
"""
