"""The report's style sheet: light, dark and print, one column on a phone, two on a desk."""

from __future__ import annotations

_LIGHT = """
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1c2128; --soft: #57606a; --rule: #d8dde3;
  --grid: #e6e9ed; --link: #0b5cad; --good: #14713d; --bad: #b3261e; --good-soft: #e4f4ea;
  --bad-soft: #fbe9e7; --s1: #0b66c3; --s2: #5d6b7c; --s3: #b0500a; --s4: #7a4fc4; --s5: #0f7f7a;
  color-scheme: light;
"""

_DARK = """
  --paper: #14171b; --panel: #1c2026; --ink: #e4e7eb; --soft: #a2abb6; --rule: #363d46;
  --grid: #2a3038; --link: #7db7f5; --good: #6fd29a; --bad: #ff9a90; --good-soft: #16301f;
  --bad-soft: #3a1c1a; --s1: #6cb2f7; --s2: #a5b2c1; --s3: #f2a263; --s4: #bb9bf3; --s5: #5fd0c8;
  color-scheme: dark;
"""

STYLE = f"""
:root {{{_LIGHT}}}
@media (prefers-color-scheme: dark) {{ :root {{{_DARK}}} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }}
body {{
  margin: 0 auto; padding: 2.2rem 1.25rem 4rem; max-width: 66rem; background: var(--paper);
  color: var(--ink); font: 400 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "Liberation Sans", sans-serif; overflow-wrap: break-word;
}}
h1 {{ font-size: 1.75rem; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em;
  margin: 0.5rem 0 0.4rem; }}
h2 {{ font-size: 1.2rem; line-height: 1.3; font-weight: 650; margin: 3rem 0 0.4rem;
  padding-top: 1.1rem; border-top: 1px solid var(--rule); }}
h3 {{ font-size: 1rem; font-weight: 650; margin: 1.8rem 0 0.2rem; overflow-wrap: anywhere; }}
p {{ margin: 0.4rem 0 0.8rem; max-width: 44rem; }}
a {{ color: var(--link); text-underline-offset: 0.15em; }}
code {{ font: 0.9em ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }}
.soft {{ color: var(--soft); font-weight: 400; }}
.verdict {{ display: inline-block; padding: 0.15rem 0.7rem; border-radius: 1rem; font-weight: 650;
  font-size: 0.9rem; color: var(--good); background: var(--good-soft); }}
.failed.verdict {{ color: var(--bad); background: var(--bad-soft); }}
nav {{ margin: 1.2rem 0 0; font-size: 0.92rem; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; list-style: none; margin: 0;
  padding: 0; }}
nav a {{ display: inline-block; padding: 0.25rem 0; }}
.cards {{ display: flex; flex-wrap: wrap; gap: 1px;
  margin: 1.6rem 0 0; background: var(--rule); border: 1px solid var(--rule);
  border-radius: 0.5rem; overflow: hidden; }}
.cards div {{ flex: 1 1 9.2rem; background: var(--paper); padding: 0.75rem 0.9rem 0.8rem; }}
.cards dt {{ font-size: 0.82rem; color: var(--soft); }}
.cards dd {{ margin: 0; font-size: 1.45rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }}
.cards dd small {{ display: block; font-size: 0.8rem; font-weight: 400; color: var(--soft);
  letter-spacing: 0; line-height: 1.4; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1.6rem 2.4rem; margin-top: 1.2rem; align-items: start; }}
figure {{ margin: 0; min-width: 0; }}
figcaption {{ font-size: 0.88rem; line-height: 1.45; color: var(--soft); margin-top: 0.5rem; }}
figcaption b {{ color: var(--ink); font-weight: 600; }}
svg {{ display: block; width: 100%; height: auto; max-width: 36rem; }}
svg text {{ font-size: 12px; fill: var(--ink); font-variant-numeric: tabular-nums; }}
svg .tick, svg .label {{ fill: var(--soft); }}
svg .end {{ text-anchor: end; }}
svg .middle {{ text-anchor: middle; }}
svg .grid {{ stroke: var(--grid); stroke-width: 1; }}
svg .axis {{ stroke: var(--soft); stroke-width: 1; }}
svg .marked {{ stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }}
svg .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
svg .line.thin {{ stroke-width: 1.4; }}
svg .dashed {{ stroke-dasharray: 6 4; }}
svg .band {{ opacity: 0.16; stroke: none; }}
svg .name {{ font-weight: 600; }}
svg .spike {{ stroke: var(--ink); stroke-width: 2; fill: none; }}
svg .letter {{ font-weight: 650; }}
{
    "".join(
        f"svg .s{i} {{ fill: var(--s{i}); }} svg .line.s{i}, svg line.s{i} "
        f"{{ stroke: var(--s{i}); }} svg .line.s{i} {{ fill: none; }} "
        f".swatch.s{i} {{ background: var(--s{i}); }} "
        for i in range(1, 6)
    )
}
.legend {{ display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; list-style: none; margin: 0 0 0.5rem;
  padding: 0; font-size: 0.88rem; }}
.swatch {{ display: inline-block; width: 0.75rem; height: 0.75rem; border-radius: 0.15rem;
  margin-right: 0.4rem; vertical-align: -0.08rem; }}
.scroll {{ overflow-x: auto; }}
.scroll:focus-visible, a:focus-visible, summary:focus-visible {{ outline: 2px solid var(--link);
  outline-offset: 2px; }}
table {{ border-collapse: collapse; font-size: 0.88rem; line-height: 1.4; }}
.wide table {{ width: 100%; }}
.wide td.words {{ min-width: 13rem; }}
.brief {{ white-space: nowrap; }}
.table {{ margin-top: 1.6rem; }}
.table figcaption {{ margin: 0 0 0.5rem; max-width: 44rem; }}
.charts .table {{ margin-top: 0; }}
.charts div .table + .table {{ margin-top: 1.6rem; }}
th, td {{ text-align: left; padding: 0.32rem 1.1rem 0.32rem 0; vertical-align: top;
  border-bottom: 1px solid var(--rule); }}
thead th {{ font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: nowrap; }}
tbody th {{ font-weight: 400; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
tr.ours th {{ font-weight: 650; }}
tr.failed td, tr.failed th {{ color: var(--bad); }}
.aside {{ border-left: 3px solid var(--s3); padding: 0.1rem 0 0.1rem 0.9rem; margin: 1rem 0; }}
.aside p {{ margin: 0.3rem 0; }}
details {{ margin-top: 1rem; }}
summary {{ cursor: pointer; font-size: 0.92rem; color: var(--link); padding: 0.25rem 0; }}
footer {{ margin-top: 3.5rem; padding-top: 0.9rem; border-top: 1px solid var(--rule);
  font-size: 0.85rem; color: var(--soft); }}
@media (max-width: 36rem) {{
  body {{ padding: 1.2rem 1rem 3rem; }}
  h1 {{ font-size: 1.4rem; }}
  th, td {{ padding-right: 0.8rem; }}
  table {{ font-size: 0.84rem; }}
  .cards dd {{ font-size: 1.25rem; }}
}}
@page {{ margin: 14mm; }}
@media print {{
  :root {{{_LIGHT}}}
  body {{ max-width: none; padding: 0; font-size: 10pt; }}
  nav {{ display: none; }}
  summary {{ color: inherit; list-style: none; font-weight: 600; }}
  details::details-content {{ content-visibility: visible; display: block; }}
  .swatch, .verdict {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  .charts {{ grid-template-columns: 1fr 1fr; gap: 1rem 1.4rem; }}
  h2 {{ margin-top: 1.4rem; }}
  h2, h3, h2 + p, .table figcaption, summary, .legend {{ break-after: avoid; }}
  figure, tr, .cards, .aside {{ break-inside: avoid; }}
  .scroll {{ overflow: visible; }}
  table {{ font-size: 7.5pt; }}
  th, td {{ padding-right: 0.5rem; }}
  thead th {{ white-space: normal; }}
  a {{ color: inherit; text-decoration: none; }}
  footer {{ margin-top: 1rem; padding-top: 0.4rem; }}
}}
@supports selector(::details-content) {{ @media print {{ summary {{ display: none; }} }} }}
@media (prefers-reduced-motion: reduce) {{ html {{ scroll-behavior: auto; }} }}
"""
