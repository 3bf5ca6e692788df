//! The page of a run: verdict, how to do it again, findings, plots, faults, timelines.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{Results, escape, seconds};
use crate::checker::{Anomaly, Finding};
use crate::fault::Window;

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#24292f;--faint:#57606a;--line:#d0d7de;--shade:#f6f8fa;
--valid:#116329;--unknown:#7d4e00;--invalid:#a40e26;--ok:#ddf4ff;--info:#fff1e5;--fail:#ffebe9}
@media (prefers-color-scheme:dark){:root{--paper:#0d1117;--ink:#e6edf3;--faint:#8d96a0;--line:#30363d;
--shade:#161b22;--valid:#3fb950;--unknown:#d29922;--invalid:#ff7b72;--ok:#0c2d6b;--info:#4d2d00;--fail:#5d0f12}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;
margin:0 auto;padding:1rem 1.5rem}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1rem 0 .3rem}
.valid{color:var(--valid)}.unknown{color:var(--unknown)}.invalid{color:var(--invalid)}
.verdict{font-weight:700}small,.time{color:var(--faint)}
pre,code{font:13px/1.4 ui-monospace,monospace}pre{background:var(--shade);padding:.6rem;overflow-x:auto;white-space:pre-wrap;
overflow-wrap:anywhere;margin:.3rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dt{color:var(--faint)}dd{margin:0}
.timeline{display:grid;grid-template-columns:7rem;grid-auto-rows:minmax(1.4rem,auto);grid-auto-columns:minmax(10rem,1fr);gap:2px 6px;overflow-x:auto;
font-size:13px;line-height:1.3}
.timeline .time{font-variant-numeric:tabular-nums}
.operation{padding:.15rem .4rem;border:1px solid var(--line);border-radius:4px;overflow-wrap:anywhere}
.operation.ok{background:var(--ok)}.operation.fail{background:var(--fail)}
.operation.info{background:var(--info);border-bottom-style:dashed;border-bottom-width:2px}
.operation.guilty{outline:2px solid var(--invalid)}";

/// A page with a title and a body.
pub(super) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n"
    )
}

/// The whole report.
pub(super) fn report(
    results: &Results,
    windows: &[Window],
    plots: [&str; 2],
    timelines: &str,
) -> String {
    let mut body = head(results);
    body.push_str(&findings(&results.findings));
    body.push_str("<h2>Plots</h2>\n");
    for plot in plots {
        let _ = writeln!(body, "<figure style=\"margin:0\">\n{plot}</figure>");
    }
    body.push_str(&faults(windows));
    let _ = writeln!(body, "<h2>Timelines</h2>\n{timelines}");
    page(&format!("{}: {}", results.run.name, results.verdict.word()), &body)
}

fn head(results: &Results) -> String {
    let (run, verdict) = (&results.run, results.verdict.word());
    let seed = run.seed.to_string();
    let facts =
        [("suite", &run.suite), ("seed", &seed), ("begun", &run.begun), ("tested", &run.version)];
    let mut html = format!(
        "<h1>{}: <span class=\"verdict {verdict}\">{verdict}</span></h1>\n<dl>\n",
        escape(&run.name)
    );
    for (name, fact) in facts {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(fact));
    }
    let _ = writeln!(html, "</dl>\n<pre>{}</pre>", escape(&run.reproduce));
    html
}

fn findings(findings: &[Finding]) -> String {
    let mut html = String::from(
        "<h2>Findings</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>Checker</th><th>Verdict</th>\
         <th>What it is sure of</th></tr></thead>\n<tbody>\n",
    );
    for finding in findings {
        let verdict = finding.validity.word();
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"verdict {verdict}\">{verdict}</td><td>{}\n{}{}</td></tr>",
            escape(&finding.checker),
            escape(&finding.summary),
            anomalies(&finding.anomalies),
            figures(&finding.figures)
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn anomalies(anomalies: &[Anomaly]) -> String {
    if anomalies.is_empty() {
        return String::new();
    }
    let mut html = String::from("<ul>\n");
    for anomaly in anomalies {
        let _ = writeln!(html, "<li>{}</li>", escape(&anomaly.to_string()));
    }
    html.push_str("</ul>\n");
    html
}

fn figures(figures: &Map<String, Value>) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut html = String::from("<details><summary>Figures</summary>\n<dl>\n");
    for (name, value) in figures {
        let (name, value) = (escape(&name.replace('_', " ")), escape(&value.to_string()));
        let _ = writeln!(html, "<dt>{name}</dt><dd><code>{value}</code></dd>");
    }
    html.push_str("</dl></details>\n");
    html
}

fn faults(windows: &[Window]) -> String {
    let mut html = String::from(
        "<h2>Faults</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>Fault</th><th>From</th>\
         <th>Lasted</th><th>Acted</th><th>Where, and what shows it</th></tr></thead>\n<tbody>\n",
    );
    for window in windows {
        let details: Vec<String> = window.details.iter().map(Value::to_string).collect();
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{:.2} s</td><td>{:.2} s</td><td>{}</td><td><code>{}</code></td></tr>",
            escape(&window.fault),
            seconds(window.from),
            seconds(window.until - window.from),
            window.acted,
            escape(&details.join(" "))
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}
