"""Stages of a run by cNMF itself: ``python -m tests.scverse.stages '[[FOLDER, NAME, STAGE, OPTIONS], ...]'``.

In a process of its own, as cNMF changes the settings of what it imports.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from typing import Any


def main(jobs: list[tuple[str, str, str, dict[str, Any]]]) -> None:
    warnings.simplefilter("ignore")
    from cnmf import cNMF

    for folder, name, stage, options in jobs:
        if stage == "copy":
            shutil.copytree(folder, options["to"])
            continue
        run = cNMF(output_dir=folder, name=name)
        if stage == "load":
            usage, scores, tpm, top = run.load_results(K=options["k"], density_threshold=0.5)
            print([list(x.shape) for x in (usage, scores, tpm, top)])
        else:
            getattr(run, stage)(**options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
