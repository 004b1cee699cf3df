"""How many examples property tests draw: a number of each hypothesis profile, which tests scale where they must."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

MOST = 4.0  # times as many examples as the profile has


def register_profiles() -> None:
    """Profiles `quick`, and `ci` where CI is set; `pytest --hypothesis-profile=NAME` picks one."""
    settings.register_profile("quick", max_examples=40, deadline=None)
    settings.register_profile("ci", settings.get_profile("ci"), max_examples=100, deadline=None)
    settings.load_profile("ci" if os.environ.get("CI") else "quick")


def examples(share: float, **others: Any) -> settings:
    """Settings of a test that needs more or fewer examples than the profile has, by this factor."""
    if not 0 < share <= MOST:
        raise ValueError(f"{share} is not a factor of the profile's number of examples: more than 0, at most {MOST}.")
    return settings(max_examples=max(1, round(settings().max_examples * share)), **others)
