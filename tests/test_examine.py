"""A network of the reader's own, examined: each fault is found where it was put, and nowhere else; what is typed wrongly is explained."""

import pytest
import torch
from torch import nn

from jfb_tutorial import Anderson, ImplicitNetwork
from jfb_tutorial.__main__ import main
from jfb_tutorial.examine import examine
from jfb_tutorial.examine_target import load

torch.manual_seed(0)
DATA, LABELS = torch.randn(6, 2), torch.arange(6) % 2


class Cell(nn.Module):
    """R(u, q) = tanh(gain · W u + q), ‖W‖ = 1, with what a test puts into it."""

    def __init__(self, gain=0.5, drop=0.0, deaf=False, batch_norm=False):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        nn.init.orthogonal_(self.linear.weight)
        self.gain, self.deaf = gain, deaf
        self.drop = nn.Dropout(drop)
        self.norm = nn.BatchNorm1d(8, affine=False) if batch_norm else nn.Identity()

    def forward(self, u, q):
        u = self.gain * self.drop(self.linear(self.norm(u)))
        return torch.tanh(u if self.deaf else u + q)


def network(cell=None, **settings):
    torch.manual_seed(0)
    return ImplicitNetwork(nn.Linear(2, 8), cell or Cell(), nn.Linear(8, 2), **settings)


class Both(nn.Module):
    """Two parts of which S reads the first."""

    def forward(self, u, q):
        return torch.tanh(0.5 * u[1] + q[0]), torch.tanh(0.5 * u[0] + q[1])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 8), nn.Linear(2, 8)

    def forward(self, d):
        return self.first(d), self.second(d)


class First(nn.Linear):
    def forward(self, u):
        return super().forward(u[0])


def pair():
    torch.manual_seed(0)
    return ImplicitNetwork(Two(), Both(), First(8, 2))


@pytest.fixture(scope="module")
def sound():
    return examine(network(), DATA, LABELS)


def test_a_sound_network_has_nothing_to_mend(sound):
    assert sound.to_mend == ()
    assert str(sound).endswith("Nothing to mend was found.")
    assert sound.measured["at_rest"] == 1
    assert sound.measured["norm"] < 0.51
    assert sound.measured["radius"] <= sound.measured["norm"]
    assert sound.measured["criterion"] > 0
    # what is measured twice is measured alike: the rules come nearer with more terms
    assert sound.measured["cosine_jfb"] < sound.measured["cosine_neumann"] <= 1 + 1e-9


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: network(Cell(drop=0.2)), ["Dropout in R"]),
        (lambda: network(Cell(deaf=True)), ["does not hear its input"]),
        (pair, ["With JFB no gradient reaches Q.second.weight, Q.second.bias:"]),
        (lambda: network(solver=Anderson(tol=1e-12, max_steps=3)), ["0 of 6 samples to rest"]),
    ],
    ids=["dropout", "deaf", "pair", "solver"],
)
def test_a_fault_is_found_and_alone(made, says):
    found = examine(made(), DATA, LABELS)
    assert len(found.to_mend) == len(says), found
    for finding, words in zip(found.to_mend, says, strict=True):
        assert words in finding.text
        assert finding.remedy


def test_a_map_that_pushes_away_from_its_fixed_point():
    turn = Cell(gain=3.0)
    with torch.no_grad():
        turn.linear.weight.copy_(-torch.eye(8))  # every step turns the state round
    found = examine(network(turn), DATA, LABELS)
    assert found.measured["radius"] > 1
    assert any("plain iteration does not stay" in finding.text for finding in found.to_mend)
    assert any(finding.remedy == "Try Anderson() as the solver." for finding in found.findings)


def test_where_nothing_rests_nothing_is_measured_there():
    class Round(nn.Module):
        def forward(self, u, q):
            return u + 1 + 0 * q

    found = examine(ImplicitNetwork(nn.Linear(2, 8), Round(), nn.Linear(8, 2)), DATA)
    assert any("No fixed point was found" in finding.text for finding in found.to_mend)
    assert not {"norm", "criterion", "cosine_jfb"} & set(found.measured)


def test_two_fixed_points_are_noticed():
    class Keep(nn.Module):
        def forward(self, u, q):
            return torch.tanh(3 * u) + 1e-3 * q

    with torch.no_grad():
        made = network(Keep())
        made.Q.weight.zero_()
        made.Q.bias.fill_(1.0)
    found = examine(made, DATA)
    assert any("another fixed point" in finding.text for finding in found.findings)


def test_nothing_of_the_caller_changes():
    made = network(Cell(batch_norm=True)).train()
    before, state = {k: v.clone() for k, v in made.state_dict().items()}, torch.get_rng_state()
    examine(made, DATA, LABELS)
    assert made.training
    assert made.last is None
    assert all(torch.equal(before[k], v) for k, v in made.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.dtype == torch.float32 for p in made.parameters())


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ((nn.Linear(2, 2), DATA), TypeError, "must be an ImplicitNetwork, got Linear"),
        ((network(), torch.tensor(1.0)), ValueError, "at least one sample"),
        ((network(), None), ValueError, "got NoneType"),
        ((ImplicitNetwork(nn.Linear(2, 8), Cell(), lambda u: (u, u)), DATA), TypeError, "S must return one tensor"),
    ],
)
def test_what_cannot_be_examined_is_refused(given, error, says):
    with pytest.raises(error, match=says):
        examine(*given)


MODULE = """
import torch
from torch import nn
from jfb_tutorial import ImplicitNetwork

class Cell(nn.Linear):
    def forward(self, u, q):
        return torch.tanh(0.5 * super().forward(u) + q)

def build():
    torch.manual_seed(0)
    return ImplicitNetwork(nn.Linear(2, 8), Cell(8, 8), nn.Linear(8, 2))

def with_data():
    return build(), torch.ones(4, 2), torch.arange(4) % 2

network = build()
def wants(width, depth=2): ...
def inside(): return nn.Sequential(nn.Linear(2, 2), build())
def nothing(): ...
def words(): return build(), "moons"
def five(): return build(), 1, 2, 3, 4
six = 6
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "an_own_module.py").write_text(MODULE)
    (tmp_path / "an_own_other.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("typed", ["build --shape 2", "network --shape 2 --batch 3", "with_data"])
def test_from_a_shell(folder, capsys, typed):
    assert main(["examine", *f"an_own_module:{typed}".split()]) == 0
    said = capsys.readouterr().out
    assert said.startswith("ok    114 weights, a state of 8 numbers a sample.")
    assert said.endswith("Nothing to mend was found.\n")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("an_own_module", "write MODULE:FUNCTION, such as mymodule:build, got 'an_own_module'"),
        ("an_own_module.py:build", "give the module's name and not its file: an_own_module:build"),
        ("an_own_modul:build", "there is no module 'an_own_modul'; did you mean 'an_own_module'?"),
        ("elsewhere:build", "there is no module 'elsewhere'; run the command in the folder that holds it"),
        ("an_own_other:build", "an_own_other cannot be imported: No module named 'nowhere_at_all'"),
        ("an_own_module:builds", "an_own_module has no 'builds'; did you mean 'build'?"),
        ("an_own_module:six", "must be a function that returns a network, got int"),
        ("an_own_module:wants", "must run without arguments, and asks for width; write"),
        ("an_own_module:inside", "returned Sequential, which has an ImplicitNetwork inside, '1': return that one"),
        ("an_own_module:nothing", "must return an ImplicitNetwork, got NoneType"),
        ("an_own_module:words", "must be a tensor (batch, …), got str"),
        ("an_own_module:five", "at most a network, data, targets and a loss, got a tuple of 5"),
        ("an_own_module:build", "returned no data; return a tuple, network and data, or say the shape"),
        ("an_own_module:build --shape 0", "shape must be at least 1, got 0"),
    ],
)
def test_what_is_typed_wrongly_is_explained_in_a_line(folder, capsys, typed, says):
    assert main(["examine", *typed.split()]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_drawn_data_are_the_same_each_time(folder):
    first, second = (load("an_own_module:build", (2,), 3).d for _ in range(2))
    assert torch.equal(first, second)
