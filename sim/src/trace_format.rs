//! A readable trace: the core's own log, with virtual time instead of a clock's.
//!
//! ```text
//! [  12.345678s] n2  s0  e3   took tail_bytes=812
//! ```
//!
//! Time, node, shard and epoch stand in columns, so that one can be followed through the others with
//! nothing but an eye or a `grep`.

use std::fmt::{self, Write as _};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::filter_fn,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer, layer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
};

use crate::virtual_time;

/// What a run's thread logs to, for [`Options::log`](crate::run::Options::log). Only what Stormkeep itself
/// says passes: the runtime beneath has a log of its own, of every task.
pub fn dispatch<W>(writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = layer()
        .event_format(Line)
        .with_ansi(false)
        // A reader that has gone away (`| head`) is no reason to complain for every line.
        .log_internal_errors(false)
        .with_writer(writer)
        .with_filter(filter_fn(passes));
    Dispatch::new(Registry::default().with(lines))
}

fn passes(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("stormkeep") && *metadata.level() <= Level::DEBUG
}

/// One event as one line; see the module's docs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line;

impl<S, N> FormatEvent<S, N> for Line
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
        let mut columns = Columns::default();
        event.record(&mut columns);
        let now = virtual_time::now();
        let (seconds, micros) = (now / 1_000_000_000, now / 1000 % 1_000_000);
        write!(writer, "[{seconds:>4}.{micros:06}s] ")?;
        for (column, width) in [(&columns.node, 3), (&columns.shard, 3), (&columns.epoch, 4)] {
            write!(writer, "{column:<width$} ")?;
        }
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("ERROR ")?,
            Level::WARN => writer.write_str("WARN ")?,
            _ => {}
        }
        writeln!(writer, "{}{}", columns.message, columns.others)
    }
}

/// The fields of an event, sorted into columns.
#[derive(Debug, Default)]
struct Columns {
    node: String,
    shard: String,
    epoch: String,
    message: String,
    others: String,
}

impl Visit for Columns {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "node" => numbered(&mut self.node, 'n', value),
            "shard" => numbered(&mut self.shard, 's', value),
            "epoch" => numbered(&mut self.epoch, 'e', value),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

/// A number with its column's letter, whether it was logged with it or not.
fn numbered(column: &mut String, letter: char, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    let text = text.trim_matches('"');
    if text.starts_with(letter) {
        write!(column, "{text}")
    } else {
        write!(column, "{letter}{text}")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

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

    #[test]
    fn has_time_node_shard_epoch_and_only_our_own() {
        let kept = Kept::default();
        let writer = kept.clone();
        tracing::dispatcher::with_default(&dispatch(move || writer.clone()), || {
            virtual_time::set_now(12_345_678_912);
            tracing::info!(node = %2, shard = %"s0", epoch = 3, tail_bytes = 812, "took");
            virtual_time::set_now(1_000);
            tracing::error!(node = "n11", reason = "full", "the log refuses");
            tracing::trace!("too fine");
            tracing::info!(target: "madsim::task", "not ours");
            tracing::debug!("alone");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "[  12.345678s] n2  s0  e3   took tail_bytes=812",
                "[   0.000001s] n11          ERROR the log refuses reason=\"full\"",
                "[   0.000001s]              alone",
            ]
        );
    }
}
