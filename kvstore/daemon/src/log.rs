//! The log: lines in the form of etcd's, or for people.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};
use tracing_subscriber::registry::LookupSpan;

use crate::flags::Values;

/// Sends the log where the flags say.
///
/// # Errors
/// If a file of it cannot be opened.
pub(crate) fn init(values: &Values) -> Result<()> {
    let level = match values.text("log-level") {
        "dpanic" | "panic" | "fatal" => "error",
        level => level,
    };
    // openraft tells of every step that it takes.
    let raft = if level == "info" { "warn" } else { level };
    let filter = EnvFilter::new(format!("{level},openraft={raft}"));
    let (writer, is_terminal) = outputs(&values.list("log-outputs"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match values.text("log-format") {
        "console" => subscriber.with_ansi(is_terminal).init(),
        _ => subscriber.event_format(Lines).init(),
    }
    Ok(())
}

/// All outputs as one, and whether that is a terminal.
fn outputs(names: &[&str]) -> Result<(BoxMakeWriter, bool)> {
    ensure!(!names.is_empty(), "--log-outputs is empty: name stderr, stdout or a file");
    let mut all: Option<BoxMakeWriter> = None;
    for name in names {
        let one = match *name {
            "default" | "stderr" | "systemd/journal" => BoxMakeWriter::new(io::stderr),
            "stdout" => BoxMakeWriter::new(io::stdout),
            path => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                BoxMakeWriter::new(file.with_context(|| format!("--log-outputs: cannot write to {path}"))?)
            }
        };
        all = Some(match all {
            None => one,
            Some(others) => BoxMakeWriter::new(others.and(one)),
        });
    }
    let is_terminal = match names {
        ["stdout"] => io::stdout().is_terminal(),
        ["default" | "stderr"] => io::stderr().is_terminal(),
        _ => false,
    };
    let writer = all.unwrap_or_else(|| BoxMakeWriter::new(io::stderr));
    Ok((writer, is_terminal))
}

/// One object per line, with the names that etcd gives to its parts: `level`, `ts`, `logger`, `msg`, and fields.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut ts = String::new();
        SystemTime.format_time(&mut Writer::new(&mut ts))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let text = |text: &str| Value::from(text).to_string();
        write!(
            writer,
            "{{\"level\":\"{level}\",\"ts\":{},\"logger\":{},\"msg\":{}",
            text(&ts),
            text(metadata.target()),
            text(&fields.message)
        )?;
        for (name, value) in &fields.others {
            write!(writer, ",{}:{value}", text(name))?;
        }
        writeln!(writer, "}}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => drop(self.others.insert(name.replace('_', "-"), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_line_is_an_object_as_etcd_writes_it() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt().event_format(Lines).with_writer(kept.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(data_dir = "a\"b", keys = 3, "the store is \n read");
        });
        let line = kept.0.lock().unwrap().clone();
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&line["level"], &line["msg"]), (&"warn".into(), &"the store is \n read".into()));
        assert_eq!((&line["data-dir"], &line["keys"]), (&"a\"b".into(), &3.into()));
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
    }
}
