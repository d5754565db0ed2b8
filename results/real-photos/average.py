"""Average two sets of weights of one network, tensor by tensor, half of each.

    python results/real-photos/average.py darionet FIRST SECOND NAME --out DIR

SECOND was trained on from FIRST. Between two such sets the loss hardly rises, and their mean often validates better
than either (Izmailov et al. 2018, arXiv 1803.05407; Wortsman et al. 2022, arXiv 2109.01903). What is written takes
the card of SECOND, except for what the mean changes.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import shlex
import sys
from pathlib import Path

from srbench import weights
from srbench.records.provenance import code_state


def main() -> None:
    """Read two sets, write their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("first", help="name or file")
    parser.add_argument("second", help="name or file; its card is kept")
    parser.add_argument("name", help="name of the result")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.safetensors and NAME.json")
    arguments = parser.parse_args()
    given = [weights.load(weights.find(arguments.method, spec)) for spec in (arguments.first, arguments.second)]
    first, second = given
    card = second.ref.card
    if card is None or first.parameters != second.parameters or first.state.keys() != second.state.keys():
        parser.error(f"{arguments.first} and {arguments.second} must be trained weights of the same network")
    state = {key: (first.state[key].float() + value.float()) / 2 for key, value in second.state.items()}
    code = code_state()
    made = dataclasses.replace(
        card,
        name=arguments.name,
        command=shlex.join(["python", "results/real-photos/average.py", *sys.argv[1:]]),
        commit=f"{code.commit}-dirty" if code.commit and code.dirty else code.commit,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        recipe={},
        metrics={},
        extra={
            "protocol": card.extra["protocol"],
            "mean_of": [{"name": each.ref.label, "sha256": each.ref.sha256} for each in given],
        },
    )
    weights.save(arguments.out / f"{arguments.name}{weights.SUFFIX}", state, made, store_fp16=True)


if __name__ == "__main__":
    main()
