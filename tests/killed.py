"""Trains in child processes that are killed with SIGKILL at random moments; used by test_training.

killed.py DIR TIMES: kills TIMES runs that resume one another in DIR, then lets one finish. Importing takes most of the time of
a short run, so it is done once, and every run is a fork of this process, which has computed nothing.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from jfb_tutorial.training import checkpoints, train
from jfb_tutorial.training.recipes import recipe


def start(out: Path) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(recipe("digits", "smoke", epochs=8, average=0.9), out, resume=True)
            status = 0
        finally:
            os._exit(status)
    return child


def main(out: Path, times: int) -> None:
    chance = random.Random(0)
    begin = time.perf_counter()
    whole = start(out / "whole")
    assert os.waitpid(whole, 0)[1] == 0
    length = time.perf_counter() - begin
    kills, epochs = 0, []
    while kills < times:
        child = start(out / "killed")
        time.sleep(chance.uniform(0.05, 0.6) * length)
        if os.waitpid(child, os.WNOHANG)[0]:  # it finished first: the next round begins anew
            for path in (out / "killed").iterdir():
                path.unlink()
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        # whatever is there under its name is whole
        for path in (out / "killed").glob("*.safetensors"):
            checkpoints.load(path)
            epochs.append(path.name)
    assert os.waitpid(start(out / "killed"), 0)[1] == 0
    print(kills, len(set(epochs)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
