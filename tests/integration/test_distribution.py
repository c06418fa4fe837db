from importlib.metadata import packages_distributions

import pytest

pytestmark = pytest.mark.integration
ROOMS = ("penstock", "pipelines", "components", "serving", "registry")


@pytest.mark.parametrize("room", ROOMS)
def test_every_top_level_name_is_ours(room: str) -> None:
    assert set(packages_distributions()[room]) == {"penstock"}
