"""Prepare training data: raw corpora in, frozen splits out.

python -m scripts.prepare_data --data DIR --out runs/data
"""

import argparse
import json
import sys
from pathlib import Path

from lcm.errors import LcmError
from lcm.training.data import DEFAULT_DATA, DEFAULT_PREPARED, prepare, splits_differ


def main() -> int:
    """Exit code 0; 2 when the data is missing; 1 when the splits differ from the ones the bundle was trained on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with text/ and speech/ (%(default)s)")
    parser.add_argument("--out", type=Path, default=DEFAULT_PREPARED, help="where the splits go (%(default)s)")
    arguments = parser.parse_args()
    try:
        manifest = prepare(arguments.data, arguments.out, report=lambda line: print(line, file=sys.stderr))
    except LcmError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    print(json.dumps({name: entry["rows"] for name, entry in manifest.items()}))
    if different := splits_differ(manifest):
        print(f"prepare_data: not the splits the mini bundle was trained on: {', '.join(different)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
