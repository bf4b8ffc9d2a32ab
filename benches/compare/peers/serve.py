"""The conversation of a peer with `run`: its first line names it, then every line "op shape" on standard input is
answered with the median seconds of a call, or with "!" and the reason why there is none."""

import argparse
import sys
import time


class Unsupported(Exception):
    """This peer has no such operation."""


def median(call, budget):
    """Seconds of a call: the median of as many as fit the budget, after a tenth of it to warm up."""
    begin = time.perf_counter()
    while True:
        call()
        if time.perf_counter() - begin > budget / 10:
            break
    times, begin = [], time.perf_counter()
    while not times or time.perf_counter() - begin < budget:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3)
    return parser.parse_args()


def serve(name, version, case, budget):
    """`case(op, shape)` makes the operands and gives the call to be measured."""
    answers = sys.stdout
    # Libraries that print must not answer for the peer.
    sys.stdout = sys.stderr
    print(name, version, file=answers, flush=True)
    kept = (None, None)
    for request in sys.stdin:
        try:
            if kept[0] != request:
                kept = (None, None)
                op, shape = request.split()
                kept = (request, case(op, [int(part) for part in shape.split("x")]))
            answer = f"{median(kept[1], budget):e}"
        except Unsupported as reason:
            answer = f"! {str(reason) or 'not supported'}"
        except Exception as error:  # whatever it is, the comparison goes on without this figure
            answer = "! " + " ".join(repr(error).split())[:200]
        print(answer, file=answers, flush=True)
