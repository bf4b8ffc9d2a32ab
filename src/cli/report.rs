//! Answers as text for people: tables with a line of names, aligned.

use std::path::Path;

use serde_json::Value;

use crate::api::answer::Answer;
use crate::api::payload::Format;
use quantd_codec::json;

use super::{Failure, files};

/// The fact that tables tell.
const REPORT_FACT: &str = "report";

fn unreadable() -> Failure {
    Failure::new("the answer could not be read")
}

fn parse(text: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(text).map_err(|_| unreadable())
}

/// Rows with as much space between columns as they need.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row: &Vec<String>| row.get(column));
        cells.map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A figure in six digits, or a dash where there is none.
fn figure(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(_) if value.is_u64() || value.is_i64() => value.to_string(),
        Some(x) if x != 0.0 && !(1e-4..1e7).contains(&x.abs()) => format!("{x:.3e}"),
        Some(x) => {
            let text = format!("{x:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

fn decibels(report: &Value) -> String {
    match (report["sqnr_db"].as_f64(), report["mse"].as_f64()) {
        (Some(sqnr), _) => format!("{sqnr:.1} dB"),
        (None, Some(0.0)) => "exact".to_owned(),
        (None, _) => "-".to_owned(),
    }
}

const REPORT: [&str; 6] = ["bits/element", "ratio", "SQNR", "max error", "clipped", "nan"];

fn report_cells(report: &Value) -> [String; 6] {
    [
        figure(&report["bits_per_element"]),
        figure(&report["compression_ratio"]),
        decibels(report),
        figure(&report["max_abs_error"]),
        figure(&report["clipped"]),
        figure(&report["nan"]),
    ]
}

/// What was written where, and what each tensor lost if it was quantized.
pub(super) fn written(answer: &Answer, output: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let reports = reports(answer)?;
    if !reports.is_empty() {
        let head = std::iter::once("tensor").chain(REPORT);
        let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
        for (name, report) in &reports {
            let name = if name.is_empty() { "data" } else { name };
            rows.push(std::iter::once(name.to_owned()).chain(report_cells(report)).collect());
        }
        text += &table(&rows);
    }
    for (name, fact) in &answer.facts {
        // What a bare tensor cannot carry is said here, or it would be lost.
        if *name != REPORT_FACT {
            text += &format!("{name}: {fact}\n");
        }
    }
    text += &passed(answer.passed);
    if !files::is_stream(output) {
        text += &format!("wrote {} ({} bytes)\n", output.display(), answer.len());
    }
    Ok(text)
}

/// A line that says how many tensors are as they came, if any.
fn passed(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "1 tensor passed as it is\n".to_owned(),
        _ => format!("{count} tensors passed as they are\n"),
    }
}

/// The report of each tensor by name, from where the format of the answer has it.
fn reports(answer: &Answer) -> Result<Vec<(String, Value)>, Failure> {
    match answer.format {
        Format::Npy | Format::Raw => {
            let fact = answer.facts.iter().find(|(name, _)| *name == REPORT_FACT);
            let report = fact.map(|(_, text)| parse(text.as_bytes())).transpose()?;
            Ok(report.into_iter().map(|report| (String::new(), report)).collect())
        }
        Format::Safetensors => {
            let header = answer.segments.first().and_then(|first| first.get(8..));
            let header = parse(header.ok_or_else(unreadable)?)?;
            let Some(text) = header["__metadata__"]["report"].as_str() else {
                return Ok(Vec::new());
            };
            // Of several tensors there is a map of reports.
            let several = header.get("codes").is_none();
            let report = parse(text.as_bytes())?;
            if let (true, Value::Object(map)) = (several, &report) {
                return Ok(map.clone().into_iter().collect());
            }
            Ok(vec![(String::new(), report)])
        }
        Format::Json => json_reports(&answer.segments.concat()),
    }
}

/// Without looking at the codes, of which there are many.
fn json_reports(text: &[u8]) -> Result<Vec<(String, Value)>, Failure> {
    let members = json::members(text).map_err(|_| unreadable())?;
    if let Some(report) = json::find(&members, "report") {
        return Ok(vec![(String::new(), parse(report.value)?)]);
    }
    let Some(tensors) = json::find(&members, "tensors") else { return Ok(Vec::new()) };
    let tensors = json::members(tensors.value).map_err(|_| unreadable())?;
    let mut reports = Vec::new();
    for tensor in &tensors {
        let members = json::members(tensor.value).map_err(|_| unreadable())?;
        if let Some(report) = json::find(&members, "report") {
            reports.push((tensor.key.clone().into_owned(), parse(report.value)?));
        }
    }
    Ok(reports)
}

/// One line a scheme; those that no other beats are marked.
pub(super) fn compared(document: &[u8]) -> Result<String, Failure> {
    let document = parse(document)?;
    let head = std::iter::once("scheme").chain(REPORT).chain(["mse", "pareto"]);
    let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for row in document["results"].as_array().into_iter().flatten() {
        let mut cells = vec![row["name"].as_str().unwrap_or_default().to_owned()];
        cells.extend(report_cells(&row["report"]));
        cells.push(figure(&row["report"]["mse"]));
        cells.push(if row["pareto"] == true { "*" } else { "" }.to_owned());
        rows.push(cells);
    }
    let others = document["passed"].as_array().map_or(0, Vec::len);
    Ok(table(&rows) + &passed(others))
}

const STATISTICS: [&str; 8] = ["count", "min", "max", "mean", "std", "zeros", "nan", "inf"];

/// One line for the whole and one a slice, then the percentiles of the whole.
pub(super) fn inspected(document: &[u8]) -> Result<String, Failure> {
    let document = parse(document)?;
    let mut rows = vec![std::iter::once("slice").chain(STATISTICS).map(str::to_owned).collect()];
    let mut row = |name: String, statistics: &Value| {
        let figures = STATISTICS.iter().map(|&name| figure(&statistics[name]));
        rows.push(std::iter::once(name).chain(figures).collect::<Vec<_>>());
    };
    row("all".to_owned(), &document["statistics"]);
    for (i, slice) in document["slices"].as_array().into_iter().flatten().enumerate() {
        row(i.to_string(), slice);
    }
    let mut percentiles = vec![names(&["percentile", "value"])];
    for entry in document["statistics"]["percentiles"].as_array().into_iter().flatten() {
        percentiles.push(vec![figure(&entry["p"]), figure(&entry["value"])]);
    }
    Ok(format!(
        "{} {}\n{}\n{}",
        document["dtype"].as_str().unwrap_or_default(),
        document["shape"],
        table(&rows),
        table(&percentiles)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_short_and_columns_aligned() {
        let check = |value: Value, text: &str| assert_eq!(figure(&value), text);
        check(json!(8.0), "8");
        check(json!(3.969_696), "3.9697");
        check(json!(1.5e-7), "1.500e-7");
        check(json!(0.0), "0");
        check(json!(12), "12");
        check(json!(null), "-");
        let rows = [names(&["a", "bb"]), names(&["ccc", "d"])];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }

    #[test]
    fn a_report_without_error_is_exact() {
        assert_eq!(decibels(&json!({"sqnr_db": null, "mse": 0.0})), "exact");
        assert_eq!(decibels(&json!({"sqnr_db": 40.04, "mse": 0.1})), "40.0 dB");
        assert_eq!(decibels(&json!({"sqnr_db": null, "mse": null})), "-");
    }
}
