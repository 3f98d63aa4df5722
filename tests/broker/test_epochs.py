"""Epochs of leases, as a forged REGISTER may claim them."""

from __future__ import annotations

import pytest
from rig import Rig

from broker.leases import MAX_EPOCH
from ssmprov import wire


@pytest.mark.parametrize("epoch", [MAX_EPOCH, 2**53 - 1])
def test_an_epoch_that_nobody_can_have_is_refused(epoch: int) -> None:
    rig = Rig()
    forged = rig.hand("talk/0", epoch=epoch)
    assert forged.hears(wire.Bye)[0].error is not None
    assert rig.hand("talk/0").epoch == 1


def test_the_lease_after_the_highest_epoch_can_be_told() -> None:
    rig = Rig()
    rig.hand("talk/0", epoch=MAX_EPOCH - 1).is_lost()
    assert rig.hand("talk/0").epoch > MAX_EPOCH
