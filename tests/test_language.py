"""The transformer of chapter 15: what it may read, its gradients against dense matrices, its text, and how it learns."""

import gzip
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.pages import language
from jfb_tutorial.pages.instances import gradient_of
from jfb_tutorial.solvers import Anderson, FixedPointIteration
from jfb_tutorial.theory import Linearised
from jfb_tutorial.training import texts
from jfb_tutorial.training.data import DataNotFoundError

SMALL: dict[str, Any] = {"width": 8, "heads": 2, "inner": 12, "context": 6}
REST = FixedPointIteration(tol=1e-12, max_steps=5000)


def small(norm="post", seed=0, **more):
    return language.network(7, seed, norm=norm, **(SMALL | more)).double()


def tokens(count=1, length=6, seed=0):
    return torch.randint(7, (count, length), generator=torch.Generator().manual_seed(seed))


def by_hand(block, u, q):
    """One sequence through a block, place by place and head by head, in NumPy."""
    get = {name: weight.detach().numpy() for name, weight in block.named_parameters()}

    def normal(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    pre = block.norm == "pre"
    x = (normal(u) if pre else u) @ get["W.weight"].T + q @ get["U.weight"].T + get["U.bias"]
    width, head = u.shape[1], u.shape[1] // block.heads
    out = np.zeros_like(u)
    for t in range(len(u)):
        for k in range(block.heads):
            part = slice(k * head, (k + 1) * head)
            query, keys, values = x[t, :width][part], x[: t + 1, width : 2 * width], x[: t + 1, 2 * width :]
            size = np.exp(keys[:, part] @ query / math.sqrt(head))
            out[t, part] = (size / size.sum()) @ values[:, part]
    h = normal(u + out @ get["O.weight"].T + get["O.bias"])
    inside = np.maximum(h @ get["F.0.weight"].T + get["F.0.bias"], 0)
    v = h + inside @ get["F.2.weight"].T + get["F.2.bias"]
    return v if pre else normal(v)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_step_is_what_its_formula_says(norm):
    network = small(norm)
    u, q = torch.randn(2, 1, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(
            network.R(u, q)[0].numpy(), by_hand(network.R, u[0].numpy(), q[0].numpy()), atol=1e-12
        )


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("rule", [JFB(), UnrolledPhantom(3, 0.8), Unrolled(4)])
def test_no_answer_depends_on_a_later_token(norm, rule):
    """Exactly, after any number of steps: neither what is read at a place, nor how it is trained."""
    network = small(norm, gradient=rule, steps=3)
    seen = []
    hook = network.Q.token.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logits = network(tokens())
    hook.remove()
    (sent,) = torch.autograd.grad(logits[0, 2].sum(), seen[0])
    assert (sent[0].abs().sum(dim=1) > 0).tolist() == [True, True, True, False, False, False]
    one, other = tokens(), tokens()
    other[:, 3:] = (other[:, 3:] + 1) % 7
    with torch.no_grad():
        assert torch.equal(network(one)[:, :3], network(other)[:, :3])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_nor_does_the_fixed_point(norm):
    network = small(norm)
    one, other = tokens(), tokens()
    other[:, 3:] = (other[:, 3:] + 1) % 7
    with network.using(solver=REST):
        found = [network.solve(d) for d in (one, other)]
    assert all(each.all_converged for each in found)
    assert (found[0].u[:, :3] - found[1].u[:, :3]).abs().max() < 1e-10
    assert (found[0].u[:, 3:] - found[1].u[:, 3:]).abs().max() > 1e-2


def test_a_solver_that_mixes_the_whole_sequence_reads_ahead():
    """Anderson's weights are found from the residuals at all places, so stopped early its answer knows of later tokens."""
    network = small()
    one, other = tokens(), tokens()
    other[:, 3:] = (other[:, 3:] + 1) % 7
    apart = {}
    for name, solver in {
        "plain": FixedPointIteration(max_steps=6, check_every=0),
        "early": Anderson(tol=1e-30, max_steps=6),
        "late": Anderson(tol=1e-12, max_steps=500),
    }.items():
        with network.using(solver=solver), torch.no_grad():
            apart[name] = (network.solve(one).u - network.solve(other).u)[:, :3].abs().max().item()
    assert apart["plain"] == 0
    assert apart["early"] > 1e-6
    assert apart["late"] < 1e-10


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_step_cannot_leave_a_ball(norm):
    """So that, by Brouwer, there is a fixed point whatever the weights are."""
    R, q = small(norm).R, torch.randn(1, 6, 8, dtype=torch.float64)
    rows = math.sqrt(8)
    if norm == "pre":
        first, _, second = R.F
        inside = torch.linalg.matrix_norm(first.weight, 2) * rows + first.bias.norm()
        rows += (torch.linalg.matrix_norm(second.weight, 2) * inside + second.bias.norm()).item()
    with torch.no_grad():
        for size in (0, 1e-3, 1, 1e3, 1e6):
            u = size * torch.randn(1, 6, 8, dtype=torch.float64)
            assert R(u, q).norm(dim=2).max() <= rows


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_spectrum_lies_on_the_diagonal(norm):
    network = small(norm)
    T = network.operator(tokens())
    with network.using(solver=REST):
        u = network.solve(tokens()).u
    J = language.jacobian(T, u)
    torch.testing.assert_close(J.reshape(48, 48), torch.autograd.functional.jacobian(T, u).reshape(48, 48))
    assert all(not J[s, :, t].any() for s in range(6) for t in range(s + 1, 6))
    radius = torch.linalg.eigvals(language.diagonal(J)).abs().max().item()
    assert radius == pytest.approx(theory.spectral_radius(T, u), rel=1e-6)
    assert radius < theory.contraction_factor(T, u)


RULES: dict[str, tuple[Any, Any]] = {
    "exact": (ImplicitDifferentiation("gmres", tol=1e-12), lambda J: torch.linalg.inv(torch.eye(len(J)) - J)),
    "by sequence": (
        ImplicitDifferentiation("gmres", tol=1e-12, per_sample=True),
        lambda J: torch.linalg.inv(torch.eye(len(J)) - J),
    ),
    "JFB": (JFB(), lambda J: torch.eye(len(J))),
    "NPG": (NeumannSeries(5, 0.8), lambda J: damped(J, 5, 0.8)),
    "UPG": (UnrolledPhantom(5, 0.8), lambda J: damped(J, 5, 0.8)),
    "unrolled": (Unrolled(100), lambda J: torch.linalg.inv(torch.eye(len(J)) - J)),
}


def damped(J, steps, size):
    B = size * J + (1 - size) * torch.eye(len(J))
    return size * sum(torch.linalg.matrix_power(B, k) for k in range(steps))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("name", RULES)
def test_gradients_against_dense_matrices(norm, name):
    rule, series = RULES[name]
    torch.set_default_dtype(torch.float64)
    try:
        network, d = small(norm, context=3), tokens(1, 3)
        y = tokens(1, 3, seed=1)

        def loss(logits, y):
            return cross_entropy(logits.flatten(0, 1), y.flatten())

        case = Linearised(network, d, y, loss)
        with network.using(solver=REST):
            found = gradient_of(network, rule, d, y, loss=loss)
        # Linearised has JFB's layout, the transpose of PyTorch's
        expected = torch.cat([case.M_S @ case.dl, case.M_T @ series(case.dT) @ case.g])
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def test_losses_are_those_of_the_network_after_as_many_steps():
    network = language.network(7, 0, steps=4, **SMALL)
    d, y = tokens(5), tokens(5, seed=1)
    found = language.losses(network, d, y, (1, 5, 9), batch=2)
    with torch.no_grad():  # the solver's four and the rule's one
        assert found[1].item() == pytest.approx(cross_entropy(network(d).flatten(0, 1), y.flatten()).item(), rel=1e-5)
    nn.init.zeros_(network.S.linear.weight)
    nn.init.zeros_(network.S.linear.bias)
    knows_nothing = language.losses(network, d, y, (2,)).item()
    assert language.perplexity(knows_nothing) == pytest.approx(7)
    assert language.bits(knows_nothing) == pytest.approx(math.log2(7))


@pytest.mark.parametrize("at", [(), (0, 1), (3, 2)])
def test_steps_must_rise(at):
    with pytest.raises(ValueError, match="at must rise"):
        language.losses(small(), tokens(), tokens(), at)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_it_learns_a_text_that_repeats(norm):
    text = torch.tensor([0, 1, 1, 2, 5, 2]).repeat(60)
    network = language.network(7, 0, norm=norm, steps=6, **SMALL)
    seen = []
    losses = language.train(
        network, text, 0, updates=40, batch=4, rate=1e-2, penalty=0.1, watch=lambda k, loss, s: seen.append((k, loss))
    )
    assert len(losses) == 40
    assert losses[-1] < 0.6 * losses[0]
    assert seen[-1] == (40, losses[-1])
    again = language.network(7, 0, norm=norm, steps=6, **SMALL)
    assert language.train(again, text, 0, updates=1, batch=4, watch=lambda *_: True) == []


def test_the_penalty_holds_the_jacobian_down():
    text = tokens(1, 400, seed=3)[0]
    found = []
    for penalty in (0.0, 3.0):
        network = language.network(7, 0, steps=6, **SMALL)
        language.train(network, text, 0, updates=25, batch=4, rate=1e-2, penalty=penalty)
        d = tokens(4)
        found.append(theory.jacobian_penalty(network.operator(d), network.solve(d).u, samples=20).item())
    assert found[1] < 0.8 * found[0]


def test_tied_weights_are_shared_and_against_the_assumption():
    network = small(tied=True)
    assert network.S.linear.weight is network.Q.token.weight
    assert len(list(network.parameters())) == len(list(small().parameters())) - 1
    with pytest.raises(ValueError, match=r"Assumption 3\.2"):
        theory.criterion(network, tokens())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: small("both"), "norm must be one of 'post', 'pre'"),
        (lambda: small(heads=3), "multiple of heads, got 8 and 3"),
        (lambda: small(heads=0), "heads must be at least 1"),
        (lambda: small()(tokens(1, 7)), "at most 6 tokens, the context, got 7"),
        (lambda: language.jacobian(lambda u: u, torch.zeros(2, 3, 4)), "of one sequence"),
        (
            lambda: language.train(small(gradient=Unrolled(2)), tokens(1, 50)[0], 0, penalty=1.0),
            "Unrolled makes no solve",
        ),
        (lambda: language.train(small(), tokens()[0], 0), "longer than the context of 6"),
        (lambda: texts.cut(tokens(), 3), "one row"),
        (lambda: texts.cut(tokens()[0], 0), "context must be at least 1"),
    ],
)
def test_what_is_no_network_or_no_text(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_windows_and_what_follows_them():
    row = torch.arange(50)
    d, y = texts.windows(row, 20, 8, torch.Generator().manual_seed(0))
    assert d.shape == y.shape == (20, 8)
    assert torch.equal(y, d + 1)
    assert len(d[:, 0].unique()) > 10
    d, y = texts.cut(row, 8)
    assert torch.equal(d.flatten(), row[:48])
    assert torch.equal(y, d + 1)


def test_characters_of_a_file(tmp_path):
    (tmp_path / "mine").mkdir()
    text = "ab\n" * 66 + "é?"
    with gzip.open(tmp_path / "mine" / "input.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    parts = [texts.characters(tmp_path / "mine" / "input.txt", split) for split in texts.SPLITS]
    assert [len(part) for part in parts] == [180, 10, 10]
    assert "".join(parts[0].vocabulary[k] for part in parts for k in part.tokens) == text
    assert repr(parts[2]) == "Text(mine, test: 10 tokens, 5 different ones)"
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(ValueError, match="at least 20 characters"):
        texts.characters(tmp_path / "short.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 9)
    with pytest.raises(ValueError, match=r"no UTF-8 text \(byte 3\)"):
        texts.characters(tmp_path / "latin.txt")


def written(folder, train, valid):
    folder.mkdir()
    (folder / f"{folder.name}.train.txt").write_text(train)
    with gzip.open(folder / f"{folder.name}.valid.txt.gz", "wt") as file:
        file.write(valid)
    return folder


def test_words_of_a_folder(tmp_path):
    folder = written(tmp_path / "tiny", " the <unk> sat \n the end \n", "the cat sat\n")
    train, valid = (texts.words(folder, split) for split in ("train", "valid"))
    assert train.vocabulary == valid.vocabulary == ("<eos>", "<unk>", "end", "sat", "the")
    assert train.tokens.tolist() == [4, 1, 3, 0, 4, 2, 0]
    assert valid.tokens.tolist() == [4, 1, 3, 0]
    with pytest.raises(DataNotFoundError, match=r"tiny\.test\.txt"):
        texts.words(folder, "test")
    with pytest.raises(ValueError, match="2 words do not occur in train, which has no <unk>"):
        texts.words(written(tmp_path / "other", "the sat\n", "the cat cat\n"), "valid")
    with pytest.raises(ValueError, match="has no words"):
        texts.words(written(tmp_path / "empty", "", ""))


def test_published_texts_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("JFB_DATA", str(tmp_path))
    with pytest.raises(DataNotFoundError, match=r"neither .*input\.txt nor input\.txt\.gz .*char-rnn"):
        texts.load("tinyshakespeare")
    with pytest.raises(DataNotFoundError, match="not openly licensed"):
        texts.load("ptb", "valid")
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("First Citizen:\n" * 20)
    with pytest.raises(ValueError, match="is not the published file"):
        texts.load("tinyshakespeare")
    for name, split, message in (("ptp", "train", "'ptb'"), ("ptb", "dev", "split must be one of")):
        with pytest.raises(ValueError, match=message):
            texts.load(name, split)
