"""Proposals: where in an image objects may be. `make_proposer(ProposalConfig())` is the seam."""

from __future__ import annotations

from sppdet.proposals.proposal_cache import propose_all
from sppdet.proposals.proposer import ENGINES, ProposalConfig, Proposer, make_proposer
from sppdet.proposals.selective_search import selective_search

__all__ = [
    "ENGINES",
    "ProposalConfig",
    "Proposer",
    "make_proposer",
    "propose_all",
    "selective_search",
]
