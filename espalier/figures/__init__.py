"""Pictures: of a repository, and of what a ledger says. All but the SVG of a repository needs matplotlib."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__, {"errors": ["PlotError"], "files": ["write_chart", "write_plot"], "ledgers.kinds": ["Kind"]}
)
