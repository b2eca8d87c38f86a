"""Benchmarks: respool beside what people use instead, each contender alone in a fresh process, in turn.

``make bench`` runs them in an environment that has all the peers; ``python -m tests.benchmarks --help`` says the rest.

To add some, write a module beside this text whose name has no leading underscore:

1. A contender is an async context manager over what its library documents as the way to use it. It gets the server's
   URL and yields ``work(keys)``: do one operation a key, return the sum of ``key * answer``. The harness calls it
   from as many tasks as the benchmark asks for, and checks the sum: a wrong answer, or one that went to the wrong
   task, ends the run.
2. ``BENCHMARKS = (Benchmark(...), ...)`` lists contenders, ours first, the number of tasks, the right answer to a
   key, the goals, and the server: a context manager that starts it and yields its URL.
3. Import peers inside the contender, so that a missing one costs nothing but its own line in the table, and add them
   to the group ``bench`` in ``pyproject.toml``. ``loop="asyncio"``, ``"uvloop"`` or ``"threads"`` (then everything is
   synchronous) say where a contender runs. Nothing is tuned for one contender that the others are not given.
4. A ``Program`` is a contender that measures itself, like wrk. ``fractions`` says beside which of ours it is shown.
5. A ``Surge`` is the other kind of benchmark: its contenders yield ``use()``, and callers come at a rate of their own.
"""
