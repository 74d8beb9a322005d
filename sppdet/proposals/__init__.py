"""Proposals: where in an image objects may be. `make_proposer(ProposalConfig())` is the seam."""

from __future__ import annotations

from sppdet.proposals.cache import propose_all
from sppdet.proposals.config import ENGINES, ProposalConfig
from sppdet.proposals.proposer import Proposer, is_compiled, make_proposer, warm_up
from sppdet.proposals.selective import selective_search

__all__ = [
    "ENGINES",
    "ProposalConfig",
    "Proposer",
    "is_compiled",
    "make_proposer",
    "propose_all",
    "selective_search",
    "warm_up",
]
