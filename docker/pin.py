"""Write the images' requirements files, pinned to what is installed here: python docker/pin.py

cluster.txt: what pyproject.toml asks for, TensorFlow left out, with all that it needs. trainer.txt: what TensorFlow
adds to that. build.txt: what builds the wheel. Run it with the images' Python where the tests passed, then run
tests/docker/test_docker.py and test_docker_runs.py.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
TRAINER = "tensorflow"  # and what only it needs
HEADS = {
    "cluster": "What the images `cluster` and `trainer` hold, written by docker/pin.py. No TensorFlow.",
    "trainer": "What the image `trainer` holds beside cluster.txt, written by docker/pin.py.",
    "build": "What builds the wheel, written by docker/pin.py. Nothing of it is in the images.",
}


def pinned(wanted: Iterable[Requirement]) -> dict[str, str]:
    """Name and installed version of every requirement and of all that they need on this platform, sorted by name."""
    found: dict[str, str] = {}
    done: set[tuple[str, str]] = set()
    queue = [(requirement, extra) for requirement in wanted for extra in ("", *sorted(requirement.extras))]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in done:
            continue
        done.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed here. Install what pyproject.toml asks for first.") from None
        found[name] = package.version
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                queue += [(needed, one) for one in ("", *sorted(needed.extras))]
    return dict(sorted(found.items()))


def lists(pyproject: Path) -> dict[str, dict[str, str]]:
    """The three lists by the names of their files: package to version."""
    project = tomllib.loads(pyproject.read_text())
    wanted = [Requirement(text) for text in project["project"]["dependencies"]]
    cluster = pinned(one for one in wanted if canonicalize_name(one.name) != TRAINER)
    everything = pinned(wanted)
    return {
        "cluster": cluster,
        "trainer": {name: version for name, version in everything.items() if name not in cluster},
        "build": pinned(Requirement(text) for text in project["build-system"]["requires"]),
    }


def main() -> None:
    """Write the three files beside this one."""
    for name, pins in lists(HERE.parent / "pyproject.toml").items():
        lines = [f"# {HEADS[name]}", *(f"{package}=={version}" for package, version in pins.items())]
        (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
