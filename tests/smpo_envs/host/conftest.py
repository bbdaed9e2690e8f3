import pytest

from smpo_envs.host import compat


def pytest_runtest_setup(item):
    if item.get_closest_marker("host"):
        try:
            compat.check_installed()
        except ImportError as missing:
            pytest.skip(str(missing))
