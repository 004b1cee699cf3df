"""Show a run of another process as `run` shows its own."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TextIO

from dtap_dask.job.status.displays import open_display
from dtap_dask.job.status.sources import RunStatus, StatusSource
from dtap_dask.job.status.text import moment


def follow(
    source: StatusSource, progress: str = "auto", *, whole: bool = False, out: TextIO | None = None
) -> RunStatus:
    """Show a run until it has ended, and return its last status.

    Of its earlier notes the last one is shown, or with `whole` all. KeyboardInterrupt leaves the run alone.
    """
    earlier = [] if whole else source.notes()[:-1]
    number, remark = earlier[-1].number + 1 if earlier else 0, ""
    with open_display(progress, out) as display:
        status = source.read()
        if status.over and not whole:
            when = moment(status.snapshot.updated)
            display.show(replace(status.snapshot, stages=()), [f"{status.snapshot.id} had ended already, at {when}."])
        while True:
            fresh = [note for note in source.notes() if note.number >= number]  # after the status: none is missed
            texts = [note.text for note in fresh]
            if status.remark and not remark and not status.gone:
                texts.append(status.remark)
            if status.over:
                display.show(status.snapshot)  # stages first: the last notes are about the whole run
                succeeded = status.error is None
                display.show(status.snapshot, texts, status.snapshot.to_json() if succeeded else None)
                return status
            display.show(status.snapshot, texts)
            number, remark = fresh[-1].number + 1 if fresh else number, status.remark
            time.sleep(source.seconds)
            status = source.read()
