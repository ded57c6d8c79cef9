"""Build the reply bank of a bundle that holds a space and a trained Base-LCM.

python -m scripts.build_bank --bundle runs/bundle
python -m scripts.build_bank --bundle runs/bundle --size 3000
"""

import argparse
import sys
from pathlib import Path

from lcm.engine import Engine
from lcm.errors import LcmError
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable
from lcm.training.data import DEFAULT_PREPARED
from lcm.training.replies import BankBuilding, build_bank


def main() -> int:
    """Exit code 0, or 2 for data or a bundle that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="the folder, which gets the part `bank`")
    parser.add_argument("--data", type=Path, default=DEFAULT_PREPARED, help="prepared splits (%(default)s)")
    parser.add_argument("--concepts", type=Path, default=Path("runs/concepts"), help="encoded sentences (%(default)s)")
    parser.add_argument("--size", type=int, default=BankBuilding().size, help="sentences (%(default)s)")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        space = ConceptSpace.load(arguments.bundle, arguments.device)
        table = ConceptTable.open(arguments.concepts, space.space_id)
        engine = Engine.load(arguments.bundle, device=arguments.device, space=space)
        settings = BankBuilding(size=arguments.size)
        build_bank(settings, space, engine, table, arguments.data, arguments.bundle, print)
    except LcmError as error:
        print(f"build_bank: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
