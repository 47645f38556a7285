"""Costly tests run with one bundle of each kind, whatever bundles are added."""

from __future__ import annotations

import pytest
from bundle_kinds import BUNDLES, first_of_each, geometry, is_repeated, method

pytest_plugins = ["pytester"]

TESTS = """
import pytest
BUNDLES = {bundles}

@pytest.fixture(params=BUNDLES)
def bundle(request):
    return request.param

@pytest.fixture
def trained(bundle):
    return bundle

@pytest.fixture
def evaluated(trained):
    return trained

def test_cheap(bundle): pass
def test_made_of_a_training(evaluated): pass
@pytest.mark.costly
def test_costly(bundle): pass
def test_of_no_bundle(): pass
"""


def test_first_of_each_kind_stands_for_the_rest() -> None:
    kinds = {"a": 2, "b": 3, "c": 2, "d": 1}
    assert first_of_each(kinds.__getitem__, list("abcd")) == ["a", "b", "d"]


@pytest.mark.parametrize("kind", [method, geometry])
def test_every_kind_has_a_bundle(kind) -> None:
    assert {kind(bundle) for bundle in first_of_each(kind)} == set(map(kind, BUNDLES))


def test_costly_tests_of_another_bundle_of_a_kind_are_repeated(pytester: pytest.Pytester) -> None:
    items = pytester.getitems(TESTS.format(bundles=BUNDLES))
    repeated = {item.name for item in items if is_repeated(item)}
    others = set(BUNDLES) - set(first_of_each(method))
    costly = ("test_made_of_a_training", "test_costly")
    assert others
    assert repeated == {f"{name}[{bundle}]" for name in costly for bundle in others}
