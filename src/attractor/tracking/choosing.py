"""Which hypotheses hold: those of the highest gain together, no object being in two of them.

Objects that share no hypothesis do not compete, so each group that does is solved alone: by linear assignment where
nothing can divide, and as a whole-number programme where something can.

Shapes: `p` hypotheses, `m` hypotheses of a group.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from attractor.tracking.hypotheses import NOBODY, Hypotheses


def chosen(given: Hypotheses, gains: Float[np.ndarray, " p"], n_earlier: int, n_later: int) -> Bool[np.ndarray, " p"]:
    """Whether each hypothesis is among those of the highest total gain; those without a gain are not.

    Args:
        given: in any order.
        gains: what each is worth.
        n_earlier: number of earlier objects.
        n_later: number of later objects.
    """
    taken = np.zeros(len(given), bool)
    useful = np.flatnonzero(gains > 0)
    if not len(useful):
        return taken
    some = given.where(gains > 0)
    group = _groups(some, n_earlier, n_later)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order])) + 1
    for members in np.split(order, starts):
        part = Hypotheses(some.parents[members], some.children[members])
        worth = gains[useful[members]]
        best = _programme(part, worth) if part.is_division.any() else _assignment(part, worth)
        taken[useful[members[best]]] = True
    return taken


def _groups(given: Hypotheses, n_earlier: int, n_later: int) -> Int64[np.ndarray, " p"]:
    """For each hypothesis, the number of its group of objects that compete."""
    n = n_earlier + n_later
    seconds = np.where(given.is_division, given.children[:, 1], given.children[:, 0])
    rows = np.concatenate([given.parents, given.parents])
    columns = n_earlier + np.concatenate([given.children[:, 0], seconds])
    links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    return connected_components(links, directed=False)[1][given.parents].astype(np.int64)


def _assignment(given: Hypotheses, gains: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """The best of a group in which nothing divides."""
    if len(given) == 1:
        return np.ones(1, bool)
    _, rows = np.unique(given.parents, return_inverse=True)
    _, columns = np.unique(given.children[:, 0], return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    table[rows, columns] = gains
    found = np.zeros(table.shape, bool)
    found[linear_sum_assignment(table, maximize=True)] = True
    return found[rows, columns]


def _programme(given: Hypotheses, gains: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """The best of a group in which something may divide: each object is in at most one hypothesis."""
    if len(given) == 1:
        return np.ones(1, bool)
    numbers = np.arange(len(given))
    _, parents = np.unique(given.parents, return_inverse=True)
    _, children = np.unique(
        np.where(given.children == NOBODY, given.children[:, :1], given.children), return_inverse=True
    )
    children = children.reshape(-1, 2) + parents.max() + 1
    double = given.is_division
    rows = np.concatenate([parents, children[:, 0], children[double, 1]])
    columns = np.concatenate([numbers, numbers, numbers[double]])
    uses = coo_array((np.ones(len(rows)), (rows, columns)), shape=(int(rows.max()) + 1, len(given)))
    solved = milp(
        -gains, integrality=np.ones(len(given)), bounds=Bounds(0, 1), constraints=LinearConstraint(uses.tocsr(), ub=1)
    )
    return solved.x > 0.5
