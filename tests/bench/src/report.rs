//! What a benchmark found: a row for every goal, measured or not.

use std::path::Path;
use std::{fmt, fs, io};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Serialize, Serializer};

/// The rows of one benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Which benchmark.
    pub(crate) bench: &'static str,
    /// What ours was compared with, with its version.
    pub(crate) peer: String,
    /// The command that repeats it.
    pub(crate) command: String,
    /// One for each goal.
    pub(crate) rows: Vec<Row>,
}

/// One figure beside the peer's.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured, under which conditions.
    pub(crate) metric: String,
    /// The unit of `ours` and `peer`.
    pub(crate) unit: &'static str,
    /// Our figure; `None` if it could not be measured.
    pub(crate) ours: Option<f64>,
    /// The peer's figure; `None` if there is no peer or it could not be measured.
    pub(crate) peer: Option<f64>,
    /// Ours divided by the peer's.
    pub(crate) ratio: Option<f64>,
    /// What is asked for.
    pub(crate) goal: Goal,
    /// Whether the goal holds; what was not measured is not met.
    pub(crate) met: bool,
}

/// What is asked of a figure. Written as text, such as `<= 2`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Ours is at most this, in the unit of the row.
    AtMost(f64),
    /// Ours is at most this much of the peer's.
    RatioAtMost(f64),
    /// Ours is at least this much of the peer's.
    RatioAtLeast(f64),
    /// Nothing: the figure is told for what it says.
    None,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {limit}"),
            Self::RatioAtMost(limit) => write!(f, "<= {limit} x"),
            Self::RatioAtLeast(limit) => write!(f, ">= {limit} x"),
            Self::None => f.write_str("-"),
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Row {
    /// A row whose ratio and verdict follow from its figures.
    pub(crate) fn new(
        metric: impl Into<String>,
        unit: &'static str,
        (ours, peer): (Option<f64>, Option<f64>),
        goal: Goal,
    ) -> Self {
        let ratio = ours.zip(peer).map(|(ours, peer)| ours / peer);
        let met = match goal {
            Goal::AtMost(limit) => ours.is_some_and(|ours| ours <= limit),
            Goal::RatioAtMost(limit) => ratio.is_some_and(|ratio| ratio <= limit),
            Goal::RatioAtLeast(limit) => ratio.is_some_and(|ratio| ratio >= limit),
            Goal::None => ours.is_some(),
        };
        Self { metric: metric.into(), unit, ours, peer, ratio, goal, met }
    }
}

impl Report {
    /// The rows as aligned columns, with the peer above and the command below.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["METRIC", "UNIT", "OURS", "PEER", "RATIO", "GOAL", "MET"]);
        let figure =
            |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.3}"));
        table.add_rows(self.rows.iter().map(|row| {
            let met = match (row.goal, row.met) {
                (Goal::None, _) => "-",
                (_, true) => "yes",
                (_, false) => "no",
            };
            [
                row.metric.clone(),
                row.unit.to_owned(),
                figure(row.ours),
                figure(row.peer),
                figure(row.ratio),
                row.goal.to_string(),
                met.to_owned(),
            ]
        }));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for position in 2..=4 {
            if let Some(column) = table.column_mut(position) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        format!("peer: {}\n\n{}\n\nrepeat: {}\n", self.peer, lines.join("\n"), self.command)
    }
}

/// Puts a report into its section of docs/benchmarks.md, in place of what was there.
pub(crate) fn write_section(name: &str, report: &Report) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "# Benchmarks\n".to_owned(),
        text => text.with_context(|| path.display().to_string())?,
    };
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let section = format!("{begin}```text\n{}```\n{end}", report.table());
    let text = match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) if from < to => text[..from].to_owned() + &section + &text[to + end.len()..],
        _ => format!("{text}\n## {name}\n\n{section}"),
    };
    fs::write(&path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_was_not_measured_does_not_meet_its_goal() {
        assert!(!Row::new("start", "s", (None, None), Goal::AtMost(2.0)).met);
        assert!(Row::new("start", "s", (Some(2.0), None), Goal::AtMost(2.0)).met);
        assert!(!Row::new("start", "s", (Some(2.1), Some(9.0)), Goal::AtMost(2.0)).met);
    }

    #[test]
    fn a_document_names_every_figure() {
        let row = Row::new("start", "s", (Some(1.0), Some(4.0)), Goal::AtMost(2.0));
        let json = serde_json::to_value(&row).unwrap();
        let expected = serde_json::json!({
            "metric": "start", "unit": "s", "ours": 1.0, "peer": 4.0, "ratio": 0.25, "goal": "<= 2", "met": true,
        });
        assert_eq!(json, expected);
    }
}
