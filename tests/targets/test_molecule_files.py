"""`tiltbench molecule`: what it writes, what structure it sees, and what it refuses."""

import re

import numpy as np
import pytest
import torch

from tests.targets.test_molecules import PLACES, SYSTEM, openmm, relative
from tiltbench.cli.main import main
from tiltbench.plan.spec import build_target, parse
from tiltbench.targets.densities.aldp import PHI, PSI, Aldp
from tiltbench.targets.molecules.files import checked, write
from tiltbench.targets.molecules.internal import internal
from tiltbench.targets.molecules.parameters import read
from tiltbench.targets.molecules.structure import structure
from tiltbench.targets.target import DATA

GOOD = SYSTEM.replace("EXTRA", "")
MASSES = [1, 12, 1, 1, 12, 16, 14, 1, 12, 1, 12, 1, 1, 1, 12, 16, 14, 1, 12, 1, 1, 1]


def pdb(x, model="MODEL        1\n"):
    lines = [f"HETATM{i:5d}  C   MOL A   1    {''.join(f'{10 * v:8.3f}' for v in row)}  1.00  0.00"
             for i, row in enumerate(x.tolist(), 1)]  # fmt: skip
    return model + "\n".join(lines) + "\nENDMDL\n" + "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.xml").write_text(GOOD)
    (tmp_path / "mine.pdb").write_text(pdb(PLACES))
    np.save(tmp_path / "mine.npy", PLACES.numpy())
    return tmp_path


def test_a_target_is_written_and_serves(folder, capsys):
    assert main(["molecule", "mine.xml", "mine.pdb", "--temperature", "350", "--out", "made"]) == 0
    output = capsys.readouterr().out
    assert "next: tiltbench check made/mine.py" in output
    target = build_target(parse("made/mine.py"))
    assert (target.name, target.temperature, target.particles) == ("mine", 350.0, (4, 3))
    parameters, _ = checked(GOOD, PLACES)
    x = PLACES.flatten()[None] + 0.002
    energy = -8.31446261815324e-3 * 350 * target.log_rho(x)
    expected = target.energy(x)
    assert torch.allclose(energy, expected) and expected.isfinite().all()
    assert torch.equal(target.parameters.pair_values, parameters.pair_values)
    assert list(target.torsions()) == ["tau1"] and "sin_tau1" in target.statistics()
    inner = build_target(parse("made/mine.py[coordinates=internal]"))
    z = inner.chart.from_cartesian(x)
    assert torch.allclose(inner.torsions()["tau1"](z), target.torsions()["tau1"](x))
    assert target.certified_as == inner and "no reference" in target.truth().source
    assert main(["molecule", "mine.xml", "mine.npy", "--out", "made"]) == 2
    assert "is there: name another, or delete it" in capsys.readouterr().err
    assert main(["molecule", "mine.xml", "mine.npy", "--name", "other_one"]) == 0
    other = build_target(parse("other_one.py"))
    assert type(other).__name__ == "OtherOne"
    assert torch.allclose(other.log_rho(x), target.log_rho(x) * 350 / 300, rtol=1e-5)


def test_the_structure_of_alanine_dipeptide_is_the_one_written_down():
    for forcefield in ("ff96", "ff99sbildn", "ff14sb"):
        parameters = read(DATA / f"aldp_{forcefield}.npz")
        derived = structure(parameters, MASSES)
        assert derived.same == Aldp.same and derived.trans == Aldp.trans
        assert derived.angles == {"phi": PHI, "psi": PSI}
        assert len(derived.centres) == 1 and derived.centres[0][3] == 8


def test_the_cuts_are_those_of_the_conformation(folder):
    """The file of a mirror image holds mirror images."""
    parameters = read(DATA / "aldp_ff96.npz")
    x = openmm(Aldp())[0]
    mirrored = (x.unflatten(-1, (22, 3)) * x.new_tensor([-1.0, 1.0, 1.0])).flatten(-2)
    for name, places, inside, outside in (
        ("left", x, x, mirrored),
        ("right", mirrored, mirrored, x),
    ):
        moved = type(parameters)(**{**vars(parameters), "positions": places[0].reshape(22, 3)})
        write(name, moved, structure(moved, MASSES), 300.0, folder, "test")
        target = build_target(parse(f"{name}.py"))
        assert (target.log_rho(inside) > -torch.inf).all()
        assert (target.log_rho(outside) == -torch.inf).all()
        if name == "left":
            value, slope = Aldp().log_rho_and_grad(x)
            both = target.log_rho_and_grad(x)
            assert torch.allclose(both[0], value) and relative(both[1], slope) < 1e-12
        chart = internal(moved.bonds, moved.positions, target.same, target.trans)
        assert torch.equal(
            build_target(parse(f"{name}.py[coordinates=internal]")).point, 0 * chart.origin
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 10, "the bond of atoms 0 and 1 is .* in nm .a PDB file in angstrom"),
        (lambda x: x * 0.1, "nm apart, on top of each other"),
        (lambda x: x[[0, 1, 1, 3]], "atoms 1 and 2 are 0 nm apart, on top of each other"),
        (lambda x: x[:3], "coordinates of 3 atoms, and the System has 4"),
        (lambda x: x.flatten(), r"of shape \(12,\): it must be \(atoms, 3\), in nm"),
        (lambda x: torch.where(torch.arange(4)[:, None] == 2, torch.nan, x), "of atom 2 are not"),
    ],
)
def test_bad_coordinates_are_one_sentence(folder, capsys, change, message):
    np.save("bad.npy", change(PLACES).numpy())
    assert main(["molecule", "mine.xml", "bad.npy"]) == 2
    output = capsys.readouterr().err
    assert output.count("\n") == 1

    assert re.search(message, output), output
    assert not list(folder.glob("*.py"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.xml", "mine.npy"], "no.xml cannot be read"),
        (["mine.xml", "no.npy"], "no.npy is no array of numpy"),
        (["mine.xml", "mine.xml"], "read from .pdb and .npy files, not from mine.xml"),
        (["mine.npy", "mine.npy"], "mine.npy cannot be read"),
        (["mine.pdb", "mine.npy"], "the file is not XML"),
        (["mine.xml", "mine.npy", "--temperature", "-3"], "--temperature -3 must be positive"),
        (["mine.xml", "mine.npy", "--temperature", "warm"], "warm"),
        (["mine.xml", "mine.npy", "--name", "My Molecule"], "'My Molecule' is no name"),
    ],
)
def test_wrong_words_are_one_sentence(folder, capsys, words, message):
    assert main(["molecule", *words]) == 2
    output = capsys.readouterr().err
    assert message in output and output.count("\n") == 1


def test_a_damaged_pdb_file_is_refused(folder, capsys):
    (folder / "bad.pdb").write_text(pdb(PLACES).replace("   1.600", "   1.6oo"))
    assert main(["molecule", "mine.xml", "bad.pdb"]) == 2
    assert "bad.pdb is no PDB file" in capsys.readouterr().err


def test_numbers_of_other_kinds_are_one_sentence():
    target = Aldp()
    for dtype in (torch.int64, torch.float16, torch.complex64):
        for f in (target.log_rho, target.log_rho_and_grad, target.energy):
            with pytest.raises(TypeError, match="aldp takes points of float32 or float64, not"):
                f(torch.ones(2, 66, dtype=dtype))
    for wrong in (True, "300", None):
        with pytest.raises(ValueError, match="it must be a number, in kelvin"):
            Aldp(temperature=wrong)
    with pytest.raises(ValueError, match="must be positive, in kelvin"):
        Aldp(temperature=float("nan"))
