from __future__ import annotations

from typing import Any

import pytest

from sppdet.core.errors import ConfigError
from sppdet.proposals import ProposalConfig, make_proposer


def test_every_setting_is_part_of_the_key() -> None:
    other: dict[str, Any] = {
        "engine": "selective-search-quality",
        "max_proposals": 7,
        "min_size": 3,
        "seed": 5,
    }
    assert set(other) == set(ProposalConfig.model_fields)
    default = ProposalConfig()
    changed = [default.replace(**{name: value}) for name, value in other.items()]
    assert len({make_proposer(c).key for c in [default, *changed]}) == len(other) + 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "edge-boxes"}, "edge-boxes.*selective-search"),
        ({"max_proposals": -1}, "max_proposals"),
        ({"min_size": -2}, "min_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProposalConfig(**values)
