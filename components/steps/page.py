"""The frame of every page: one style, the headline first, nothing loaded from elsewhere."""

from __future__ import annotations

from html import escape

from components.steps import curves, precision, training_report
from penstock.core.runs import Headline

_STYLE = """
:root{--ink:#1b1f24;--soft:#5a6470;--paper:#fff;--line:#d9dee4;--good:#1a7f4b;--bad:#c0362c;
--reuse:#7a8ca3;--mark:#2b6cb0;--panel:#f5f7f9}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaef;--soft:#9aa7b5;--paper:#14181d;
--line:#2e363f;--good:#4cc38a;--bad:#ff7b6e;--reuse:#6d7f96;--mark:#6cb0f5;--panel:#1c2229}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
max-width:46rem;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0}.headline{font-size:1.1rem;margin:.4rem 0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2rem 0 .5rem;
border-bottom:1px solid var(--line)}
.sub,.told{color:var(--soft);fill:var(--soft)}
.badge{display:inline-block;padding:.1rem .6rem;border-radius:1rem;color:var(--paper);
background:var(--good);font-size:.9rem;
vertical-align:middle}.badge.bad,.badge.fail,.badge.insufficient_items,.badge.rolled_back,
.badge.refuse{background:var(--bad)}.badge.plain,.badge.skipped,.badge.first{background:var(--reuse)}
.failure{border-left:4px solid var(--bad);background:var(--panel);padding:.6rem .9rem;
white-space:pre-wrap;overflow-wrap:anywhere}
svg{width:100%;max-width:36rem;height:auto;font:13px system-ui,sans-serif;fill:var(--ink);
margin:.5rem 0}
rect{fill:var(--good)}rect.reused{fill:var(--reuse)}rect.failed,rect.interrupted{fill:var(--bad)}
.axis{stroke:var(--line)}.interval{stroke:var(--mark);stroke-width:3}.point{fill:var(--mark)}
.floor{stroke:var(--bad);stroke-dasharray:4 3}
.scroll{overflow-x:auto;margin:.6rem 0 1rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top;overflow-wrap:break-word}th{color:var(--soft);font-weight:500}
td:last-child{overflow-wrap:anywhere}
code{font-size:.85em;overflow-wrap:anywhere}a{color:var(--mark);overflow-wrap:anywhere}
.ok{color:var(--good)}.no{color:var(--bad)}
@media (max-width:40rem){svg{font-size:15px}}
"""

_BAD = ("blocked", "failed", "interrupted", "rolled back", "fail", "insufficient items", "refuse")
_PLAIN = ("no change", "waiting", "limited", "first", "skipped", "kept", "rendered", "found")


def page(title: str, headline: Headline, under: str, body: str) -> str:
    """Return one HTML file with everything in it.

    Args:
        title: What it is about, as text.
        headline: What came of it.
        under: HTML below the headline, small: when, which run.
        body: HTML of the rest.
    """
    decision, name = escape(headline.decision), escape(title)
    why = f'<p class="headline">{escape(headline.reason)}</p>' if headline.reason else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}: {decision}</title>"
        f"<style>{_STYLE}{curves.STYLE}{precision.STYLE}{training_report.STYLE}</style></head>"
        f'<body><h1>{name} <span class="badge {_tone(headline.decision)}">{decision}</span></h1>'
        f"{why}{under}{body}</body></html>\n"
    )


def link(url: str) -> str:
    """Return MLflow's address, readable too: the UI's frame opens no windows."""
    if not url:
        return ""
    address = escape(url)
    return f'<p>MLflow: <a target="_blank" rel="noopener" href="{address}">{address}</a></p>'


def _tone(decision: str) -> str:
    return "bad" if decision in _BAD else "plain" if decision in _PLAIN else "good"
