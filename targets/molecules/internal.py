"""Internal coordinates: bonds, angles and torsions along the tree of a molecule's bonds.

Every atom but the root hangs on its parent p by a bond of length r.  theta is the angle at p
between the atom and p's parent g, tau the torsion h-g-p-atom, h the parent of g.  Where several
atoms hang on p, tau is that of the first, and of the others the torsion from the first to them:
turning the first turns all.  What is left of the 3 n positions are rotations and translations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltbench.targets.molecules.angles import corner, torsion
from tiltbench.targets.molecules.coordinates import Both, Coordinates, Value
from tiltbench.targets.molecules.tree import Branch, branches
from tiltbench.targets.target import Groups, centred

# What one unit of z is, about the spread at 300 K: of bonds in nm; in rad of angles, of torsions
# from one atom to another on the same parent, of double bonds, and of bonds that turn.
BOND, ANGLE, SIBLING, DOUBLE, SINGLE = 0.003, 0.06, 0.1, 0.2, 1.0
TURN = 2 * math.pi

Four = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Internal(Coordinates):
    """q = origin + unit * z: n - 1 bonds in nm, n - 2 angles and n - 3 torsions in rad, in the
    order of the tree, of a molecule of n >= 3 atoms.  The support is

        r > 0,  0 < theta < pi,  |tau - its origin| < pi,

    so that every conformation has one z: a circle is cut opposite its origin, and the density is 0
    beyond.  It need not fall to 0 there: E[z . grad log rho] is not -dim.

    Atoms that are `alike` and hang on one parent come in one order, positive torsions ascending;
    the m! - 1 others, such as the other hand of a methyl group, are renamed to it.

    The density of z is rho(x) V(z),

        V = 8 pi^2 n^(-3/2) (prod m!) (prod r^2) (prod sin theta) (prod unit):

    8 pi^2 is the volume of the rotations, which have been integrated over, n^(-3/2) that of moving
    an atom instead of the centre of mass.  Z is that of rho on the subspace of centred x, and
    whatever rotations and names do not change has one law in both.
    """

    tree: tuple[Branch, ...]
    origin: Float[Tensor, " d"]
    unit: Float[Tensor, " d"]
    alike: tuple[tuple[int, ...], ...]  # places in the tree

    @property
    def atoms(self) -> int:
        return len(self.tree) + 1

    @property
    def dim(self) -> int:  # type: ignore[override]
        return 3 * self.atoms - 6

    def to_cartesian(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b D"]:
        """Centred positions in nm: from the root the first bond points along y and the second atom
        of the chain lies in the plane of x and y.  Defined outside the support, too."""
        here = self._tables(z)
        r, theta, tau = self._split(here.origin + here.unit * z)
        theta = torch.cat([torch.full_like(r[..., :1], math.pi / 2), theta], -1)
        tau = torch.cat([torch.zeros_like(r[..., :2]), tau], -1)
        tau = tau + here.follows * tau[..., here.leader]
        across = r * theta.sin()
        local = torch.stack([-r * theta.cos(), across * tau.cos(), across * tau.sin()], -1)
        y = here.start.expand(*z.shape[:-1], 3, 3)
        for level in here.levels:
            p, g, h = (y[..., at, :] for at in level.on)
            along = _unit(p - g)
            normal = _unit((g - h).cross(along, dim=-1))
            frame = torch.stack([along, normal.cross(along, dim=-1), normal], -1)
            step = (frame @ local[..., level.branches, :, None])[..., 0]
            y = torch.cat([y, p + step], -2)
        return centred(y[..., here.order, :].flatten(-2), 3)

    def from_cartesian(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b d"]:
        """z of any positions, wherever they lie in space."""
        here = self._tables(x)
        q = measured(self.tree, self.alike, x)
        bent = 2 * self.atoms - 3
        away = q - here.origin
        turned = (away[..., bent:] + math.pi).remainder(TURN) - math.pi
        return torch.cat([away[..., :bent], turned], -1) / here.unit

    def log_volume(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """log V, -inf outside the support."""
        inside = self.inside(z)
        safe = torch.where(inside[..., None], z, 0.0)
        return self._log_volume(safe).masked_fill(~inside, -torch.inf)

    def inside(self, z: Float[Tensor, "*b d"]) -> Bool[Tensor, " *b"]:
        """Whether z is in the support; true of NaN."""
        here = self._tables(z)
        r, theta, tau = self._split(here.origin + here.unit * z)
        turned = self._split(here.unit * z)[2]
        out = ((r <= 0) | (r == torch.inf)).any(-1) | ((theta <= 0) | (theta >= math.pi)).any(-1)
        out = out | (turned.abs() >= math.pi).any(-1)
        for low, high in here.ascending:
            out = out | (tau[..., low].remainder(TURN) >= tau[..., high].remainder(TURN)).any(-1)
        return ~out

    def log_rho(self, of_positions: Value, z: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        inside = self.inside(z)
        safe = torch.where(inside[..., None], z, 0.0)
        value = of_positions(self.to_cartesian(safe)) + self._log_volume(safe)
        return value.masked_fill(~inside | (value == -torch.inf), -torch.inf)

    def log_rho_and_grad(
        self, of_positions: Both, z: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        inside = self.inside(z.detach())
        with torch.enable_grad():
            safe = torch.where(inside[..., None], z.detach(), 0.0).requires_grad_()
            x, volume = self.to_cartesian(safe), self._log_volume(safe)
        value, slope = of_positions(x.detach())
        (g,) = torch.autograd.grad([x, volume], safe, [slope, torch.ones_like(volume)])
        value = value + volume.detach()
        dead = ~inside | (value == -torch.inf)
        return value.masked_fill(dead, -torch.inf), g.masked_fill(dead[..., None], 0.0)

    def virial(
        self, z: Float[Tensor, "b d"], slope: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, " b"], int]:
        """v_i = z_i of bonds and angles, at whose ends V is 0, and sin(unit z_i) / unit of torsions
        of single bonds, which is 0 where their circles are cut; 0 of the others, in which hands,
        orders of atoms that are alike, and double bonds are cut."""
        stiff = 2 * self.atoms - 3
        free = (self.unit == SINGLE).nonzero()[:, 0]
        unit = self._tables(z).unit[free]
        turn = unit * z[:, free]
        along = (z[:, :stiff] * slope[:, :stiff]).sum(-1)
        along = along + (turn.sin() / unit * slope[:, free] + turn.cos()).sum(-1)
        return along, stiff

    def _log_volume(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        here = self._tables(z)
        r, theta, _ = self._split(here.origin + here.unit * z)
        return 2 * r.log().sum(-1) + theta.sin().log().sum(-1) + here.constant

    def _split(self, q: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor, Tensor]:
        n = self.atoms
        r, theta, tau = q.split([n - 1, n - 2, n - 3], -1)
        return r, theta, tau

    def _tables(self, like: Tensor) -> _Tables:
        return _tables(self, like.device, like.dtype)


@torch.inference_mode(False)  # or whoever records a graph later could not use it
def internal(
    bonds: Int[Tensor, "m 2"],
    positions: Float[Tensor, "n 3"],
    alike: Groups = (),
    double: Sequence[Four] = (),
    cuts: Mapping[Four, float] | None = None,
) -> Internal:
    """Coordinates that are 0 at a conformation, but for torsions named in `cuts`: their circles are
    cut there.  `double` are the torsions of double bonds.

    Raises ValueError where the bonds are not those of one molecule (`branches`), or where three
    atoms that follow each other are on a line."""
    tree = tuple(branches(bonds.tolist(), len(positions)))
    if len(tree) < 2:
        raise ValueError("two atoms have no internal coordinates but their distance: use positions")
    groups = tuple(filter(lambda members: len(members) > 1, (_together(tree, g) for g in alike)))
    origin = measured(tree, groups, positions.double().flatten())
    bend = origin[len(tree) : 2 * len(tree) - 1]
    if not ((bend > 1e-3) & (bend < math.pi - 1e-3)).all():
        raise ValueError(
            "three atoms that follow each other are on a line, about which nothing can be turned: "
            "use positions"
        )
    units = [BOND] * len(tree) + [ANGLE] * (len(tree) - 1)
    for place, branch in enumerate(tree[2:], 2):
        four = (branch.before, branch.grandparent, branch.parent, branch.atom)
        leads = branch.leader == place
        stiff = DOUBLE if four in double or four[::-1] in double else SINGLE
        units.append(stiff if leads else SIBLING)
        for named, angle in (cuts or {}).items():
            if leads and four in (named, named[::-1]):
                origin[2 * len(tree) - 3 + place] = angle - math.pi
    return Internal(tree, origin, torch.tensor(units, dtype=torch.float64), groups)


def measured(
    tree: Sequence[Branch], alike: Sequence[tuple[int, ...]], x: Float[Tensor, "*b D"]
) -> Float[Tensor, "*b d"]:
    """Bonds, angles and torsions of positions, atoms that are alike in their order."""
    y = x.unflatten(-1, (-1, 3))

    def at(atoms: list[int]) -> Tensor:
        return y[..., torch.tensor(atoms, device=x.device, dtype=torch.long), :]

    atom, parent, grandparent = (
        at([branch[k] for branch in tree]) for k in range(3)
    )  # of the first, whose grandparent is -1, the last atom, which is not used
    first = at(
        [b.before if b.leader == k else tree[b.leader].atom for k, b in enumerate(tree[2:], 2)]
    )
    r = (atom - parent).square().sum(-1).sqrt()
    atom, parent, grandparent = (part[..., 1:, :] for part in (atom, parent, grandparent))
    theta = corner(atom, parent, grandparent)
    tau = torsion(first, *(part[..., 1:, :] for part in (grandparent, parent, atom)))
    q = torch.cat([r, theta, tau], -1)
    index = torch.arange(q.shape[-1], device=x.device).expand(q.shape).clone()
    for group in alike:
        places = torch.tensor(group, device=x.device)
        order = tau[..., places - 2].remainder(TURN).argsort(-1)
        for shift in (0, len(tree) - 1, 2 * len(tree) - 3):
            index[..., places + shift] = places[order] + shift
    return q.gather(-1, index)


def _together(tree: Sequence[Branch], group: tuple[int, ...]) -> tuple[int, ...]:
    """The places of those atoms of a group with nothing behind them that follow one leader."""
    places = [
        place
        for place, branch in enumerate(tree)
        if branch.atom in group and branch.end and branch.leader != place
    ]
    return tuple(place for place in places if tree[place].leader == tree[places[0]].leader)


class _Level(NamedTuple):
    """Branches of one depth, and where the atoms that they hang on are among those placed."""

    branches: slice
    on: tuple[Tensor, Tensor, Tensor]  # parent, grandparent, before


class _Tables(NamedTuple):
    """What the maps need, on one device and in one precision."""

    origin: Tensor
    unit: Tensor
    constant: float
    leader: Int[Tensor, " n-1"]
    follows: Float[Tensor, " n-1"]  # 1 where tau is told from the leader
    start: Float[Tensor, "3 3"]  # two points before the root, which are no atoms, and the root
    levels: tuple[_Level, ...]
    order: Int[Tensor, " n"]  # where the atoms are among those placed
    ascending: tuple[tuple[Tensor, Tensor], ...]  # torsions, the second above the first


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _tables(of: Internal, device: torch.device, dtype: torch.dtype) -> _Tables:
    def places(numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    tree = of.tree
    where = {tree[0].parent: 2, **{branch.atom: place + 3 for place, branch in enumerate(tree)}}
    levels = []
    for depth in range(1, tree[-1].depth + 1):
        level = [place for place, branch in enumerate(tree) if branch.depth == depth]
        some = [tree[place] for place in level]
        on = (
            [where[branch.parent] for branch in some],
            [where.get(branch.grandparent, 1) for branch in some],
            [where.get(branch.before, depth - 1) for branch in some],
        )
        p, g, h = map(places, on)
        levels.append(_Level(slice(level[0], level[-1] + 1), (p, g, h)))
    constant = math.log(8 * math.pi**2) - 1.5 * math.log(of.atoms)
    constant += float(of.unit.log().sum()) + sum(math.lgamma(len(g) + 1) for g in of.alike)
    start = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    follows = [float(branch.leader != place) for place, branch in enumerate(tree)]
    return _Tables(
        of.origin.to(device=device, dtype=dtype),
        of.unit.to(device=device, dtype=dtype),
        constant,
        places([branch.leader for branch in tree]),
        torch.tensor(follows, dtype=dtype, device=device),
        start.to(device=device, dtype=dtype),
        tuple(levels),
        places([where[atom] for atom in range(of.atoms)]),
        tuple(
            (places([k - 2 for k in group[:-1]]), places([k - 2 for k in group[1:]]))
            for group in of.alike
        ),
    )


def _unit(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    return v / v.square().sum(-1, keepdim=True).sqrt()
