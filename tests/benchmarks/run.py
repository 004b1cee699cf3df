"""Measure the whole job and the loading against what people write by hand, on this machine, in one table.

    python tests/benchmarks/run.py                    # 400,000 rows, three rounds: some minutes
    python tests/benchmarks/run.py --rows 2000000

Every ratio compares numbers of this one run. The contenders take turns, round after round, and the table shows
medians. Before the clock starts, all of them do the job on a small lake and must agree on what they wrote.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Each worker process imports this file once more, and must not import TensorFlow with it: hence the late import.
    # At 3 TensorFlow keeps most of its notices to itself, in the workers that write by hand too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import command

    command.main()
