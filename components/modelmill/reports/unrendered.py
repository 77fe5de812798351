"""A page in place of a report that could not be rendered: what was found must not wait for how it looks."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import escape

from modelmill.core.progress import Progress


def rendered(render: Callable[[], str], title: str, progress: Progress | None = None) -> str:
    """What ``render`` gives, or a page that says why it gave nothing.

    Args:
        render: Makes the report as HTML.
        title: What it is about.
        progress: Told when there is no report.
    """
    try:
        return render()
    # Whatever a renderer stumbles over, the verdict that it should have shown stands.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if progress is not None:
            progress.fact(f"the report of {title} could not be rendered, and nothing else is lost: {reason[:200]}")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title></head>\n<body><h1>{escape(title)}</h1>\n"
            "<p>This report could not be rendered. What it should have shown stands in the documents beside it: "
            "verdict.json of each lane, and the run's record in the store.</p>\n"
            f"<pre>{escape(reason[:2000])}</pre></body></html>\n"
        )
