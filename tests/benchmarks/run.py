"""Measure the whole job, encoding, loading, start-up and growth against other tools, on this machine, in one table.

    python tests/benchmarks/run.py --peers all            # everything; installs the tools on first use
    python tests/benchmarks/run.py                        # without the tools that must be installed
    python tests/benchmarks/run.py --only job --rows 2000000

Every ratio compares numbers of this one run. The contenders take turns, round after round, and the table shows
medians; other tools run once. Before the clock starts, ours and the job by hand must agree on what they wrote.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Each worker process imports this file once more, and must not import TensorFlow with it: hence the late import.
    # At 3 TensorFlow keeps most of its notices to itself, in the workers that write by hand too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import command

    command.main()
