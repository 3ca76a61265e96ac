"""Scores as people read them."""


def number(metric: str, value: float | None) -> str:
    """Return a share in percent, anything else with two digits; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.2f}" if metric in ("loss", "perplexity") else f"{100 * value:.1f}"
