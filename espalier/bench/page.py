"""The frame of the report, and the rules that every benchmark keeps."""

from __future__ import annotations

RULES = (
    "Every variant is warmed up. Where times of variants are compared, they take turns (A B C A B C ...), so that a drift of the machine "
    "meets all of them alike.",
    "Medians with quartiles over at least 30 runs of each variant; --quick has fewer and says so. Loads are measured for seconds instead.",
    "The baseline is tuned as an expert would: the same thread settings, the same optimisation, no threads that spin against each other.",
    "Variants that are compared compute the same answers, which latency, merge and peers check before they are timed.",
    "Clients of load, overhead, deploy and peers have cores of their own, away from the server's, where there are four or more; "
    "with fewer they share them, and it is said.",
    "What is worse than the baseline stays in the tables.",
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>espalier: benchmarks</title>
<style>
:root {{ --paper: #ffffff; --ink: #1f2933; --dim: #5f6b7a; --grid: #e8ebef; --axis: #cfd4da; --link: #0066a4; --alert: #b3261e; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #14181d; --ink: #e6e9ed; --dim: #a3adb9; --grid: #262d35; --axis: #3d4650; --link: #66b8ee; --alert: #ff8a80; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 70rem; padding: 1.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif; }}
h1 {{ font-size: 1.7rem; margin: 0; }}
h2 {{ font-size: 1.3rem; margin: 3rem 0 0; padding-top: 1rem; border-top: 1px solid var(--axis); }}
h3 {{ font-size: 1rem; margin: 1.75rem 0 0.25rem; }}
a {{ color: var(--link); }}
nav {{ display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; margin: 0.4rem 0; }}
.summary {{ padding-left: 1.1rem; }}
.summary li {{ margin: 0.3rem 0; }}
p {{ margin: 0.4rem 0; }}
.about, .when, table + p, .wide + p {{ color: var(--dim); }}
.when, .wide + p {{ font-size: 0.875rem; }}
.headline {{ font-size: 1.1rem; margin: 0.75rem 0; }}
.warning, .noisy {{ color: var(--alert); }}
figure {{ margin: 1.25rem 0; overflow-x: auto; }}
figure svg {{ max-width: 100%; min-width: 34rem; height: auto; }}
/* As wide as the text or as its table, up to the window; what is wider scrolls, with a bar that shows it. */
.wide {{ overflow-x: auto; scrollbar-width: thin; width: fit-content; min-width: 100%; max-width: max(100%, 100vw - 4rem);
  position: relative; left: 50%; transform: translateX(-50%); }}
table {{ border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; vertical-align: top;
  white-space: nowrap; border-bottom: 1px solid var(--grid); }}
th {{ font-weight: 600; color: var(--dim); }}
td.time {{ white-space: normal; }}
td.time span, small {{ white-space: nowrap; }}
small {{ color: var(--dim); font-size: 0.8125rem; }}
thead th {{ white-space: normal; min-width: 4.5rem; vertical-align: bottom; border-bottom-color: var(--axis); }}
.right {{ text-align: right; }}
td.words {{ white-space: normal; min-width: 18rem; }}
.machine th {{ white-space: normal; }}
.machine td {{ white-space: normal; overflow-wrap: anywhere; }}
summary {{ cursor: pointer; margin: 1rem 0 0.25rem; font-weight: 600; }}
@media print {{  /* paper does not scroll */
  .wide {{ overflow: visible; max-width: 100%; position: static; transform: none; }}
  .wide table {{ font-size: 0.6rem; }}
  .wide th, .wide td, .wide td.time span, .wide small {{ white-space: normal; overflow-wrap: anywhere; min-width: 0; padding-right: 0.3rem;
    font-size: inherit; }}
  figure svg {{ min-width: 0; }}
}}
</style>
</head>
<body>
<h1>Benchmarks of espalier</h1>
<p class="about">Many fine-tuned tasks on one shared, frozen trunk, against what one would run without it.</p>
<nav>{links}</nav>
{quick}
<ul class="summary">{summary}</ul>
<h3>The machine</h3>
<table class="machine">{machine}</table>
<h3>The rules</h3>
<ul>{rules}</ul>
{sections}
</body>
</html>
"""
