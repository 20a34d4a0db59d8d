"""The public names: listed in order, all there, all explained, none hidden by a submodule of the same name."""

import inspect
import subprocess
import sys

import pytest

import optrode as op

PACKAGES = ("control", "study", "tasks", "train", "truth")
MODULES = ("geometry", "growth", "masks", "measures", "streams")  # of op.train
CALLS = [name for name in op.__all__ if name[0].islower() and name not in PACKAGES]
TRAINING = [name for name in op.train.__all__ if name not in MODULES]
CONTROL = [name for name in op.control.__all__ if name != "demos"]


def test_names_are_listed_once_and_in_order():
    assert op.__all__ == sorted(set(op.__all__))
    assert dir(op) == op.__all__


@pytest.mark.parametrize("name", op.__all__)
def test_every_name_is_there_and_explained(name):
    assert inspect.getdoc(getattr(op, name))


@pytest.mark.parametrize("name", op.__all__)
def test_every_class_and_function_is_of_the_package(name):
    found = getattr(op, name)
    assert (found.__name__ if name in PACKAGES else found.__module__).startswith("optrode.")


def test_lists_for_programs_and_for_people_agree():
    source = inspect.getsource(op)
    for name in op.__all__:
        assert source.count(f'"{name}"') >= 1, name
    assert set(op._HOME_OF) | set(PACKAGES) == set(op.__all__)


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match="module 'optrode' has no attribute 'swep'"):
        op.swep  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'iio'; it has agreement, capitals"):
        op.tasks.iio  # noqa: B018


def test_no_function_is_hidden_by_a_module_once_everything_is_imported():
    code = (
        "import importlib, pkgutil, sys\n"
        "import optrode as op\n"
        "for found in pkgutil.walk_packages(op.__path__, 'optrode.'):\n"
        "    importlib.import_module(found.name)\n"
        f"hidden = [name for name in {CALLS!r} if not callable(getattr(op, name))]\n"
        "hidden += [name for name in (*op.tasks.NAMES, 'read_pairs') if not callable(getattr(op.tasks, name))]\n"
        f"hidden += [name for name in {TRAINING!r} if not callable(getattr(op.train, name))]\n"
        f"hidden += [name for name in {CONTROL!r} if not callable(getattr(op.control, name))]\n"
        "print(hidden)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[]\n", ran.stdout + ran.stderr


def test_tasks_are_listed():
    assert op.tasks.__all__ == sorted(op.tasks.__all__, key=lambda name: (name != "NAMES", name))
    assert all(inspect.getdoc(getattr(op.tasks, name)) for name in op.tasks.__all__ if name != "NAMES")


def test_names_of_training_studies_and_control_are_listed_and_explained():
    for package in (op.train, op.study, op.control):
        assert package.__all__ == sorted(package.__all__) == dir(package)
        assert all(inspect.getdoc(getattr(package, name)) for name in package.__all__ if name != "NAMES")
        with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
            package.fitt  # noqa: B018
