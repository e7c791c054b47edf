from collections.abc import Iterator

import pytest

from tests.support.io_namespace import Namespace, namespace


@pytest.fixture
def netns() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.fixture
def other_netns() -> Iterator[Namespace]:
    with namespace() as made:
        yield made
