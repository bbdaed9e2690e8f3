"""nbmake runs the notebooks as tests, at a size that only shows that they do."""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Kernels inherit the environment; compiling takes longer than such small runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMPO_SMOKE", "1")
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        yield
