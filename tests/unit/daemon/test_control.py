from __future__ import annotations

import pytest
import trio

from tests.support.confs import INTERFACE, read
from tunnel.control.json_protocol import ControlError
from tunnel.daemon.attach import Attachment
from tunnel.daemon.control import methods
from tunnel.daemon.daemon import Daemon


@pytest.mark.parametrize("name", ["secrets", "paths"])
@pytest.mark.parametrize("value", ["false", 1, None, [True]])
def test_a_flag_of_the_wrong_type_is_refused(name: str, value: object) -> None:
    daemon = Daemon(read(INTERFACE))
    status = methods(daemon, Attachment(daemon))["status"]
    with pytest.raises(ControlError, match=f"{name} is true or false") as refused:
        trio.run(status, {name: value})
    assert refused.value.code == "syntax"
