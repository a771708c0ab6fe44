"""The bonds of a molecule as a tree, along which its atoms are placed one level after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Branch(NamedTuple):
    """An atom of the tree and where it hangs; -1 for what would lie before the root."""

    atom: int
    parent: int
    grandparent: int
    before: int  # the grandparent's parent
    leader: int  # the first of the branches with this parent
    depth: int  # bonds to the root
    end: bool  # whether nothing hangs on it


def branches(bonds: Sequence[Sequence[int]], atoms: int) -> list[Branch]:
    """All atoms but the root, by levels; of those with one parent the one with the most atoms
    behind it comes first and leads.

    The root is an atom of one bond from which the tree is deepest, the first of them.  A ring is
    cut where the two ways round it meet.  Raises ValueError where bonds do not join all atoms, or
    where no atom has one bond only."""
    near: list[list[int]] = [[] for _ in range(atoms)]
    for i, j in bonds:
        near[i].append(j)
        near[j].append(i)
    paths = max(
        (_paths_from(near, atom) for atom in range(atoms) if len(near[atom]) == 1),
        key=lambda paths: max(map(len, paths.values())),
        default={},
    )
    if len(paths) < atoms:
        what = f"bonds join {len(paths)} of {atoms} atoms" if paths else "no atom has one bond only"
        raise ValueError(
            f"{what}: internal coordinates are of one molecule with an end; use positions"
        )
    behind = [sum(atom in line for line in paths.values()) for atom in range(atoms)]
    first: dict[tuple[int, ...], int] = {}
    tree: list[Branch] = []
    for atom in sorted(
        paths, key=lambda atom: (len(paths[atom]), paths[atom][::-1], -behind[atom], atom)
    )[1:]:
        line = paths[atom]
        leader = first.setdefault(line, len(tree))
        parent, grandparent, before = (*line, -1, -1)[:3]
        end = behind[atom] == 0
        tree.append(Branch(atom, parent, grandparent, before, leader, len(line), end))
    return tree


def _paths_from(near: list[list[int]], root: int) -> dict[int, tuple[int, ...]]:
    """Every atom that bonds join to the root, nearest first, with the atoms on its way there."""
    paths: dict[int, tuple[int, ...]] = {root: ()}
    for atom in (waiting := [root]):
        for other in sorted(near[atom]):
            if other not in paths:
                paths[other] = (atom, *paths[atom])
                waiting.append(other)
    return paths
