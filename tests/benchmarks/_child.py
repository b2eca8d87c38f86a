"""The process in which one contender is measured once: a request as JSON in, a sample as JSON out."""

from __future__ import annotations

import json
import sys

from ._benchmark import find


def main(request: str) -> None:
    wanted = json.loads(request)
    benchmark = find([wanted["benchmark"]])[wanted["benchmark"]]
    contender = next(each for each in benchmark.contenders if each.name == wanted["contender"])
    try:
        sample = benchmark.sample(contender, wanted["url"], wanted["seconds"])
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
    else:
        print(json.dumps(sample))


if __name__ == "__main__":
    main(sys.argv[1])
