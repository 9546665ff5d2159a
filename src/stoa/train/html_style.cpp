#include "stoa/train/html.h"

namespace stoa::html {

// Series colours were chosen so that neighbours stay apart in normal vision and under protanopia,
// deuteranopia and tritanopia; a picture's frame also differs by its mark, a line by its label.
std::string_view style_sheet() {
  return R"css(
:root {
  color-scheme: light dark;
  --paper: #fdfcfa; --ink: #1c2126; --muted: #5d666e; --rule: #dedad2; --faint: #f2efe9; --accent: #1f6fb5;
  --cold: #eef2f6; --hot: #07508f; --on-hot: #fff; --on-warm: var(--ink); --good: #1f6fb5; --bad: #d1520a;
  --s0: #1f6fb5; --s1: #d1520a; --s2: #6b1a4d; --s3: #22a08a; --s4: #3a2fa8; --s5: #8c7cf0; --s6: #6b4a00; --s7: #735c5f;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif;
  --serif: Charter, "Bitstream Charter", "Sitka Text", Cambria, "Noto Serif", "Liberation Serif", Georgia, serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e3e5e7; --muted: #9aa3ab; --rule: #32383e; --faint: #1d2226; --accent: #6cb4ee;
    --cold: #1e2429; --hot: #82c4f8; --on-hot: #0c1216; --on-warm: #0c1216; --good: #5fb0f0; --bad: #ff9152;
    --s0: #5fb0f0; --s1: #ff9152; --s2: #cf4a86; --s3: #7ee8d0; --s4: #8474ea; --s5: #efdf62; --s6: #c9a0b8; --s7: #b98a3a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; padding: 0 clamp(1rem, 4vw, 3rem) 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 var(--sans); font-variant-numeric: tabular-nums lining-nums; }
main, .brand { max-width: 66rem; margin: 0 auto; }
.brand { display: flex; align-items: center; gap: .55rem; padding: 1.4rem 0 .4rem; color: var(--muted);
  font: 600 .85rem var(--sans); letter-spacing: .14em; text-transform: uppercase; }
.mark { width: 1.5rem; fill: currentColor; }
h1, h2, h3 { font-family: var(--serif); font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(1.7rem, 4.5vw, 2.5rem); margin: .6rem 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.5rem; margin: 3.2rem 0 1rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.16rem; margin: 2.2rem 0 .6rem; }
h4 { font-size: .95rem; font-weight: 600; margin: 0 0 .5rem; }
p { max-width: 44rem; margin: .5rem 0; }
.lead { font: 1.1rem/1.55 var(--serif); }
.quiet, figcaption, .chips { color: var(--muted); font-size: .875rem; line-height: 1.45; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .18em; }
code, pre { font-family: var(--mono); font-size: .86em; }
code { overflow-wrap: anywhere; }
pre { background: var(--faint); padding: .9rem 1rem; border-radius: 6px; overflow-x: auto; line-height: 1.5; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; background: var(--c); margin-right: .45em; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--accent); font-size: .92rem; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--rule); color: var(--muted); font-size: .85rem; }

.scroll { overflow-x: auto; max-width: 100%; }
main > .scroll { margin: 1.4rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4; }
.figures, .texts { min-width: min(100%, 24rem); }
.figures th, .figures td, .texts th, .texts td { padding: .36rem 0 .36rem 1.6rem; border-bottom: 1px solid var(--rule);
  text-align: right; white-space: nowrap; }
.texts th, .texts td { text-align: left; white-space: normal; }
.figures th:first-child, .texts th:first-child { text-align: left; padding-left: 0; font-weight: 400; padding-right: .4rem; }
.figures thead th, .texts thead th, .figures thead th:first-child, .texts thead th:first-child { font-weight: 600; vertical-align: bottom; white-space: normal; border-bottom: 1px solid var(--ink); }
.figures th:first-child { position: sticky; left: 0; background: var(--paper); }
.figures thead a { display: block; max-width: 15rem; margin-left: auto; color: inherit; text-decoration-color: var(--rule); }
.figures thead .swatch { display: block; width: 1.7rem; height: 3px; border-radius: 1px; margin: 0 0 .4rem auto; print-color-adjust: exact; }
.figures .group th { padding-top: 1.1rem; color: var(--muted); font-size: .8rem; letter-spacing: .02em; }
.figures tr.total th, .figures tr.total td { font-weight: 600; }
.spread { color: var(--muted); font-size: .86em; }
.bar { display: inline-block; width: 4.5rem; height: .5rem; margin-left: .7rem; background: linear-gradient(90deg, var(--accent) var(--v), var(--faint) 0); border-radius: 1px; }

figure { margin: 0; min-width: 0; break-inside: avoid; container-type: inline-size; }
figure + figure { margin-top: 2rem; }
figcaption { max-width: 44rem; margin-top: .6rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 2.2rem 2.6rem; margin: 1.2rem 0; }
.grid figure + figure { margin-top: 0; }
.wide { grid-column: 1 / -1; }
.facts { columns: 24rem 2; column-gap: 4rem; margin: 1.6rem 0; }
.facts > .scroll { break-inside: avoid; margin-bottom: 1.6rem; }
.facts table { width: 100%; }
.chart { margin: 0; padding: 0 1rem 1.9rem var(--ticks); }
.chart > svg { display: block; width: 100%; overflow: visible; }
.chart .name { margin: 0 0 .55rem calc(-1 * var(--ticks)); font-size: 12px; color: var(--muted); line-height: 1.2; }
.chart text { font: 12px var(--sans); fill: var(--muted); font-variant-numeric: tabular-nums; }
.chart .y { text-anchor: end; } .chart .x { text-anchor: middle; } .chart .x.title { text-anchor: end; }
.chart .grid-line { stroke: var(--rule); stroke-width: 1; shape-rendering: crispEdges; }
.chart .base { stroke: var(--muted); stroke-width: 1; shape-rendering: crispEdges; }
.chart path { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.chart path.raw { stroke-width: 1; }
.chart path.dash { stroke-dasharray: 6 3; }
.chart circle { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
.chart .label { fill: var(--c); font-weight: 600; display: none; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 0 0 .6rem; padding: 0; font-size: .85rem; }
.legend li { list-style: none; }
.legend i { display: inline-block; width: 1.3em; margin-right: .45em; vertical-align: .25em; border-top: 2.5px solid var(--c); }
.legend .dash i { border-top-style: dashed; }
@container (min-width: 25rem) {
  .direct .label { display: block; }
  .direct { padding-right: var(--labels); }
  .direct-legend { display: none; }
}
.c0 { --c: var(--s0); } .c1 { --c: var(--s1); } .c2 { --c: var(--s2); } .c3 { --c: var(--s3); }
.c4 { --c: var(--s4); } .c5 { --c: var(--s5); } .c6 { --c: var(--s6); } .c7 { --c: var(--s7); } .plain { --c: var(--muted); }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem 1rem; }
.multiples .chart { padding: 0 .6rem 1.5rem var(--ticks); }
.multiples text, .multiples .name { font-size: 11px; }

.heat { font-size: .82rem; border-spacing: 2px; border-collapse: separate; }
.heat td[style] { min-width: 2.2rem; height: 1.8rem; padding: 0 .2rem; text-align: center; border-radius: 2px;
  background: color-mix(in oklab, var(--hot) var(--v), var(--cold)); print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.heat.roomy td[style] { min-width: 3.4rem; height: 2rem; }
.heat td.hot { color: var(--on-hot); } .heat td.warm { color: var(--on-warm); }
.heat th { font-weight: 400; text-align: right; padding: 0 .5rem 0 0; white-space: nowrap; }
.heat thead th { text-align: center; padding: 0; vertical-align: bottom; }
.heat.upright thead th[scope] span { writing-mode: vertical-rl; transform: rotate(180deg); padding-top: .35rem; }
.heat .axis { color: var(--muted); padding-bottom: .3rem; }
.heat .corner { text-align: right; padding-right: .5rem; }
.heat.small { border-spacing: 0; font-size: .7rem; line-height: 1; }
.heat.small td[style] { min-width: var(--cell); width: var(--cell); height: var(--cell); padding: 0; border-radius: 0; }
.key { display: flex; align-items: center; gap: .5rem; margin: .5rem 0 0; font-size: .8rem; color: var(--muted); }
.key i { width: 7rem; height: .55rem; border-radius: 2px; background: linear-gradient(90deg in oklab, var(--cold), var(--hot)); print-color-adjust: exact; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); gap: 1rem .9rem; margin: 0; padding: 0; }
.gallery li { list-style: none; font-size: .8rem; line-height: 1.3; }
.gallery img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated;
  background: var(--faint); border: 2px solid var(--c); border-radius: 4px; margin-bottom: .3rem; }
.gallery b { color: var(--c); } .good { --c: var(--good); } .bad { --c: var(--bad); }

@media (max-width: 40rem) {
  body { font-size: 15px; }
  .figures th, .figures td { padding-left: 1rem; }
  .heat td[style] { min-width: 1.9rem; height: 1.7rem; padding: 0; }
  .heat { font-size: .76rem; border-spacing: 1px; }
}
@media print {
  body { padding: 0; font-size: 10.5pt; }
  h2, h3, h4 { break-after: avoid; }
  tr, li { break-inside: avoid; }
  .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .swatch, .bar, .legend i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
)css";
}

}  // namespace stoa::html
