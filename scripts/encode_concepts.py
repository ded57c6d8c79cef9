"""Encode every sentence of the prepared dialogues and stories once, for the training of concept models.

    python -m scripts.encode_concepts --bundle mini
    python -m scripts.encode_concepts --bundle runs/bundle --share 0.2 --out runs/concepts_trial

A folder that holds the bundle's concepts already is left as it is.
"""

import argparse
import sys
from pathlib import Path

from lcm.errors import LcmError, TrainingDataError
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable, prepare_concepts
from lcm.training.data import DEFAULT_PREPARED


def main() -> int:
    """Exit code 0, or 2 for data or a bundle that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="mini", help="whose space (%(default)s)")
    parser.add_argument("--data", type=Path, default=DEFAULT_PREPARED, help="prepared splits (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/concepts"), help="where to write (%(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the training documents, for a trial")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        encode(arguments)
    except LcmError as error:
        print(f"encode_concepts: {error}", file=sys.stderr)
        return 2
    return 0


def encode(arguments: argparse.Namespace) -> None:
    """Encode, unless it is done."""
    space = ConceptSpace.load(arguments.bundle, arguments.device)
    try:
        table = ConceptTable.open(arguments.out, space.space_id)
    except TrainingDataError:
        prepare_concepts(arguments.data, arguments.out, space, train_share=arguments.share, report=print)
        table = ConceptTable.open(arguments.out, space.space_id)
    print(f"{len(table.concepts)} concepts of space {table.space_id} at {arguments.out}")


if __name__ == "__main__":
    sys.exit(main())
