"""`make test-quick` is chosen by a rule: the architecture, the laws thinned, one test of every other file."""

from tests.thinning import QUICK_LAWS, quick


def test_the_architecture_stays_whole_and_laws_are_spread():
    architecture = [f"tests/test_architecture.py::test_a[{i}]" for i in range(60)]
    laws = [f"tests/laws/test_x.py::{law}[{i}]" for law in ("test_a", "test_b") for i in range(2 * QUICK_LAWS)]
    kept = quick([*architecture, *laws])
    assert kept.issuperset(architecture)
    spread = {f"{law}[{i}]" for law in ("test_a", "test_b") for i in (0, QUICK_LAWS)}
    assert kept - set(architecture) == {f"tests/laws/test_x.py::{name}" for name in spread}


def test_of_every_other_file_the_first_test_runs_with_its_first_case():
    names = ["a.py::test_a[x]", "a.py::test_a[y]", "a.py::test_b", "b.py::TestIt::test_c", "b.py::TestIt::test_d[1]"]
    assert quick(names) == {"a.py::test_a[x]", "b.py::TestIt::test_c"}
