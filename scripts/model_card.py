"""Write the generated sections of the model card: figures from the bundle, examples translated now.

python -m scripts.evaluate --bundle mini --write     # measures, and keeps the figures in bundle.json
python -m scripts.model_card --bundle mini
"""

import argparse
import sys
from pathlib import Path

from lcm.errors import LcmError
from lcm.space import ConceptSpace
from lcm.training.card import rendered_examples, rendered_figures, with_section
from lcm.training.data import DEFAULT_PREPARED

CARD = Path(__file__).resolve().parents[1] / "docs" / "MODEL_CARD.md"


def main() -> int:
    """Exit code 0; 2 when the bundle or the prepared data cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="mini", help="name or folder (%(default)s)")
    parser.add_argument("--prepared", type=Path, default=DEFAULT_PREPARED, help="splits (%(default)s)")
    parser.add_argument("--card", type=Path, default=CARD, help="file to rewrite (%(default)s)")
    arguments = parser.parse_args()
    try:
        space = ConceptSpace.load(arguments.bundle)
        card = arguments.card.read_text(encoding="utf-8")
        card = with_section(card, "figures", rendered_figures(space.bundle.description.get("metrics", {})))
        card = with_section(card, "examples", rendered_examples(space, arguments.prepared))
    except (LcmError, OSError) as error:
        print(f"model_card: {error}", file=sys.stderr)
        return 2
    arguments.card.write_text(card, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
