"""Run the benchmarks with the allocator set: `run.py [ARGUMENT OF PYTEST …]`; `make benchmarks` calls this.

malloc reads its settings when a process begins, so they are put into the environment of a new one.
"""

import os
import sys
from pathlib import Path

from jfb_tutorial.timing import ALLOCATOR

if __name__ == "__main__":
    files = sorted(map(str, Path(__file__).parent.glob("bench_*.py")))
    command = [sys.executable, "-m", "pytest", "-s", *sys.argv[1:], *files]
    os.execve(sys.executable, command, {**os.environ, **ALLOCATOR})
