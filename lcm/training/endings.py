"""Endings in training texts: documents in, the same with the concept of "End of text." behind each out [LCM §2.4.2].

For models without turns, which have no stop head to learn where a text ends.
"""

from dataclasses import replace

import numpy as np

from lcm.training.concepts import ConceptTable, Documents

END_OF_TEXT = ("eng", "End of text.")
"""language, text"""


def with_ends(documents: Documents, table: ConceptTable) -> Documents:
    """Each document ends in the row after the table's last, said by whoever spoke last."""
    stops = documents.starts[1:]
    return replace(
        documents,
        sentences=np.insert(documents.sentences, stops, len(table.concepts)),
        roles=np.insert(documents.roles, stops, documents.roles[stops - 1]),
        last=np.insert(documents.last, stops, 1),
        starts=documents.starts + np.arange(len(documents.starts)),
    )
