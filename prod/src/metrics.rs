//! What is counted, as Prometheus reads it.
//!
//! Every series is an atomic number that exists from the start: counting allocates nothing and takes no lock, and a
//! server that nobody scrapes does not grow.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use stormkeep_core::{Counter, Stats};

/// Upper bounds of the classes of duration, in seconds.
const BOUNDS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// As asked.
    Success,
    /// Refused for what was asked.
    Refused,
    /// Not served for a reason of the server's.
    Failed,
}

impl Class {
    const ALL: [Class; 3] = [Class::Success, Class::Refused, Class::Failed];

    /// The class of an HTTP status.
    pub fn of(status: http::StatusCode) -> Class {
        match status.as_u16() {
            500.. => Class::Failed,
            400.. => Class::Refused,
            _ => Class::Success,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Class::Success => "2xx",
            Class::Refused => "4xx",
            Class::Failed => "5xx",
        }
    }
}

/// The requests of one kind.
#[derive(Debug)]
pub struct Route {
    protocol: &'static str,
    name: &'static str,
    classes: [AtomicU64; 3],
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Route {
    /// Counts a request that ended.
    pub fn count(&self, class: Class, took: Duration) {
        self.classes[class as usize].fetch_add(1, Ordering::Relaxed);
        let bucket = BOUNDS_S.iter().position(|bound| took.as_secs_f64() <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS_S.len())].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// Something whose size is asked for when it is read.
struct Gauge {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> f64 + Send + Sync>,
}

/// Series that somebody else counts and writes.
type Section = Box<dyn Fn(&mut String) + Send + Sync>;

#[derive(Default)]
struct Inner {
    routes: Mutex<Vec<Arc<Route>>>,
    gauges: Mutex<Vec<Gauge>>,
    sections: Mutex<Vec<Section>>,
    subscriptions: AtomicUsize,
}

/// All that one server counts. Clones share it.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

/// One follower; counted until it is dropped.
pub struct Following(Metrics);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Nothing is counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The requests of one kind, `("http", "append")`. Ask once, and keep it.
    pub fn route(&self, protocol: &'static str, name: &'static str) -> Arc<Route> {
        let mut routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.iter().find(|r| r.protocol == protocol && r.name == name) {
            return route.clone();
        }
        let route = Arc::new(Route {
            protocol,
            name,
            classes: Default::default(),
            buckets: Default::default(),
            sum_us: AtomicU64::new(0),
        });
        routes.push(route.clone());
        route
    }

    /// Adds something whose size is asked for at each reading, `("stormkeep_store_bytes", "Bytes of …", …)`.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let gauge = Gauge { name, help, read: Box::new(read) };
        self.0.gauges.lock().unwrap_or_else(PoisonError::into_inner).push(gauge);
    }

    /// Adds series that are written, whole and in this format, at each reading.
    pub fn section(&self, write: impl Fn(&mut String) + Send + Sync + 'static) {
        let mut sections = self.0.sections.lock().unwrap_or_else(PoisonError::into_inner);
        sections.push(Box::new(write));
    }

    /// Counts a follower until what is returned is dropped.
    pub fn following(&self) -> Following {
        self.0.subscriptions.fetch_add(1, Ordering::Relaxed);
        Following(self.clone())
    }

    /// Everything, in the text format of Prometheus 0.0.4.
    pub fn render(&self, stats: &Stats) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for counter in Counter::ALL {
            let name = format!("stormkeep_{}_total", snake(&format!("{counter:?}")));
            head(&mut text, &name, "counter", counter.label());
            line(&mut text, &name, "", stats.get(*counter) as f64);
        }
        self.render_routes(&mut text);
        let subscriptions = self.0.subscriptions.load(Ordering::Relaxed) as f64;
        let help = "followers of a stream or of all streams";
        gauge(&mut text, "stormkeep_subscriptions", help, subscriptions);
        for Gauge { name, help, read } in
            self.0.gauges.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            gauge(&mut text, name, help, read());
        }
        for write in self.0.sections.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            write(&mut text);
        }
        if let Some(bytes) = resident_bytes() {
            let help = "memory of the process";
            gauge(&mut text, "process_resident_memory_bytes", help, bytes as f64);
        }
        text
    }

    fn render_routes(&self, text: &mut String) {
        let routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
        head(text, "stormkeep_requests_total", "counter", "requests that ended");
        for route in routes.iter() {
            for class in Class::ALL {
                let count = route.classes[class as usize].load(Ordering::Relaxed);
                let labels = format!(
                    "{{protocol=\"{}\",route=\"{}\",class=\"{}\"}}",
                    route.protocol,
                    route.name,
                    class.label()
                );
                line(text, "stormkeep_requests_total", &labels, count as f64);
            }
        }
        let name = "stormkeep_request_seconds";
        head(text, name, "histogram", "time from a request to the head of its answer");
        for route in routes.iter() {
            let labels = format!("protocol=\"{}\",route=\"{}\"", route.protocol, route.name);
            let mut count = 0;
            let bounds = BOUNDS_S.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bucket, bound) in route.buckets.iter().zip(bounds) {
                count += bucket.load(Ordering::Relaxed);
                let labels = format!("{{{labels},le=\"{bound}\"}}");
                line(text, &format!("{name}_bucket"), &labels, count as f64);
            }
            let sum_s = route.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
            line(text, &format!("{name}_sum"), &format!("{{{labels}}}"), sum_s);
            line(text, &format!("{name}_count"), &format!("{{{labels}}}"), count as f64);
        }
    }
}

/// What a series is: its help and its kind.
pub(crate) fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// One number of a series.
pub(crate) fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: f64) {
    head(text, name, "gauge", help);
    line(text, name, "", value);
}

/// `AppendsCommitted` as `appends_committed`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

/// Memory of this process, where the system tells (Linux: `VmRSS` of `/proc/self/status`, in KiB).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_and_counts() {
        let metrics = Metrics::new();
        let stats = Stats::default();
        stats.add(Counter::AppendsCommitted, 3);
        let route = metrics.route("http", "append");
        route.count(Class::Success, Duration::from_millis(2));
        route.count(Class::of(http::StatusCode::CONFLICT), Duration::from_secs(20));
        assert!(Arc::ptr_eq(&route, &metrics.route("http", "append")));
        metrics.gauge("stormkeep_test", "a test", || 7.5);
        let following = metrics.following();
        let text = metrics.render(&stats);
        for line in [
            "stormkeep_appends_committed_total 3",
            "stormkeep_takeovers_total 0",
            "stormkeep_requests_total{protocol=\"http\",route=\"append\",class=\"2xx\"} 1",
            "stormkeep_requests_total{protocol=\"http\",route=\"append\",class=\"4xx\"} 1",
            "stormkeep_requests_total{protocol=\"http\",route=\"append\",class=\"5xx\"} 0",
            "stormkeep_request_seconds_bucket{protocol=\"http\",route=\"append\",le=\"0.001\"} 0",
            "stormkeep_request_seconds_bucket{protocol=\"http\",route=\"append\",le=\"0.0025\"} 1",
            "stormkeep_request_seconds_bucket{protocol=\"http\",route=\"append\",le=\"+Inf\"} 2",
            "stormkeep_request_seconds_sum{protocol=\"http\",route=\"append\"} 20.002",
            "stormkeep_subscriptions 1",
            "stormkeep_test 7.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        drop(following);
        assert!(metrics.render(&stats).contains("\nstormkeep_subscriptions 0\n"));
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
