"""Which tests share a process."""

import pytest

from smpo_envs.registry import TASKS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one module about one task or method run in one process, which compiles it once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.name}:{_subject(item)}"))


def _subject(item: pytest.Item) -> str:
    """The first name among the parameters; recordings go by the task they are of."""
    parameters = (
        item.callspec.params.values()
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else ()
    )
    name = next((value for value in parameters if isinstance(value, str)), "")
    return next((task for task in TASKS if name.startswith(task)), name)
