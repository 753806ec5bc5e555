"""Distances of sets: those of the books, which grow with what is wrong, and are refused where they would tell the count alone."""

import numpy as np
import pytest
from photographs import SPOILED, shots
from scipy import linalg

from video_gen.errors import DataError
from video_gen.evaluation import distances
from video_gen.evaluation.distances import check_count, frechet, kernel, least, measure, two_halves
from video_gen.evaluation.features import drawn


def drawn_sets(n=200, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 1, rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


def by_the_book(a, b):
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))


def test_frechet_distance_is_that_of_the_book():
    a, b = drawn_sets()
    assert frechet(a, b) == pytest.approx(by_the_book(a, b), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)
    assert frechet(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet(a, a + 3) == pytest.approx(9 * a.shape[1], rel=1e-9)
    turn = linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-9)
    flat = (
        np.concatenate([a, a[:, :1]], axis=1),
        np.concatenate([b, b[:, :1]], axis=1),
    )  # covariances without an inverse
    assert frechet(*flat) == pytest.approx(by_the_book(*flat), rel=1e-4)
    assert frechet(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(frechet(a, b), rel=1e-5)


def test_kernel_distance_has_no_bias():
    rng = np.random.default_rng(0)
    same = [kernel(*rng.normal(size=(2, n, 4))) for n in (20, 80) for _ in range(60)]
    assert abs(np.mean(same[:60])) < 3 * np.std(same[:60]) / 60**0.5 and np.std(same[60:]) < np.std(same[:60])
    a, b = drawn_sets()
    products = (np.concatenate([a, b]) @ np.concatenate([a, b]).T / 6 + 1) ** 3
    n = len(a)
    inside = (products[:n, :n].sum() - products[:n, :n].trace() + products[n:, n:].sum() - products[n:, n:].trace()) / (
        n * (n - 1)
    )
    assert kernel(a, b) == pytest.approx(inside - 2 * products[:n, n:].mean(), rel=1e-9)


def test_of_many_videos_subsets_tell_the_same(monkeypatch):
    a, b = drawn_sets(400)
    whole = kernel(a, b)
    monkeypatch.setattr(distances, "SUBSET", 100)
    assert kernel(a, b) == kernel(a, b) != whole
    assert kernel(a, b) == pytest.approx(whole, rel=0.1)


def test_the_interval_holds_the_value_and_narrows_with_more_files():
    a, b = drawn_sets(64)
    files = [str(i) for i in range(64)]
    for kind in distances.KINDS:
        one = measure(kind, a, b, files, files)
        assert one.low < one.value < one.high and one == measure(kind, a, b, files, files)
    few, many = (measure("kernel", *drawn_sets(n), *[[str(i) for i in range(n)]] * 2) for n in (40, 160))
    assert many.high - many.low < few.high - few.low
    alike = ["a"] * 64
    assert np.isnan(measure("kernel", a, b, alike, files).low)  # clips of one file are one piece of evidence


def test_too_few_are_refused_with_the_number_it_takes():
    assert (least("frechet", 400), least("frechet", 8), least("kernel", 400)) == (800, 32, 32)
    with pytest.raises(
        DataError, match=r"i3d: 100 videos on a side, and it takes 800 \(400 features want 2 videos each\).*kernel"
    ):
        check_count("frechet", 100, 400, "i3d")
    with pytest.raises(DataError, match="it takes 32"):
        check_count("kernel", 10, 400, "i3d")
    check_count("frechet", 800, 400, "i3d")
    x = np.zeros((20, 3))
    with pytest.raises(DataError, match="measure more clips"):
        measure("frechet", x, x, ["a"] * 20, ["a"] * 20)


def test_halves_share_no_file_and_are_of_a_size():
    files = ["a"] * 5 + ["b"] * 3 + ["c"] * 2 + ["d"]
    first, second = two_halves(files)
    assert sorted(first + second) == list(range(11)) and abs(len(first) - len(second)) <= 1
    assert not {files[i] for i in first} & {files[i] for i in second}
    assert two_halves(["a"] * 4) == ([0, 1, 2, 3], [])


@pytest.fixture(scope="module")
def sets():
    clips = shots(160)
    return clips[:80], clips[80:]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_distances_grow_with_what_is_wrong(sets, spoil):
    features = drawn()
    real = features(sets[0])
    made = [features(spoil(sets[1], much)) for much in SPOILED[spoil]]
    for distance in (frechet, kernel):
        floor = distance(real, features(sets[1]))
        found = [distance(real, x) for x in made]
        print(spoil.__name__, SPOILED[spoil], distance.__name__, f"{floor:.4g}", [f"{value:.3g}" for value in found])
        assert found[0] < found[1] < found[2] and found[1] > floor
    assert frechet(real, made[2]) > 1.5 * frechet(real, features(sets[1]))
