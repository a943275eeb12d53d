"""Order the classes of a confusion matrix so that classes that are confused stand next to each other."""

from __future__ import annotations

import numpy as np

from striate.charts import Array


def clustered(counts: Array) -> list[int]:
    """An order of the classes in which those with many confusions between them are neighbors.

    Single-linkage clustering: the pairs are joined in the order of their confusions as a share of the images
    of both classes (ties by index). Two groups are joined at the ends that are confused more, so that the
    order within a group follows the confusions, too. Groups without confusions keep the order of their first
    classes.

    Args:
        counts: integers `[true, predicted]`.
    """
    likeness = _likeness(counts)
    rows, columns = np.nonzero(np.triu(likeness, 1))
    strength = likeness[rows, columns]
    groups: dict[int, list[int]] = {i: [i] for i in range(len(counts))}
    group_of = list(range(len(counts)))
    for at in np.lexsort((columns, rows, -strength)).tolist():
        one, other = group_of[rows[at]], group_of[columns[at]]
        if one == other:
            continue
        joined = _joined(groups[one], groups.pop(other), likeness)
        groups[one] = joined
        for i in joined:
            group_of[i] = one
    return [i for group in sorted(groups.values(), key=min) for i in group]


def _likeness(counts: Array) -> Array:
    """Symmetric `[classes, classes]`: confusions of each pair as a share of their images."""
    both = counts + counts.T
    size = counts.sum(axis=1)
    likeness: Array = both / np.maximum(size[:, None] + size[None, :], 1)
    return likeness


def _joined(left: list[int], right: list[int], likeness: Array) -> list[int]:
    """Both lists in one, each turned so that the ends that meet are the ones that are most confused."""
    turns = ((left, right), (left, right[::-1]), (left[::-1], right), (left[::-1], right[::-1]))
    one, other = max(turns, key=lambda pair: likeness[pair[0][-1], pair[1][0]])
    return [*one, *other]
