//! Logs and metrics: set-up, and the names as constants.
//!
//! Labels hold routes, methods, statuses and words of this program, never text
//! of callers, so that their number is bounded.

mod logs;
mod sink;

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use logs::{LogFormat, announce, complain, flush_logs, init_logs};

const REQUEST_DURATION: &str = "http_server_request_duration_seconds";
const ACTIVE_REQUESTS: &str = "http_server_active_requests";
const QUEUE_DEPTH: &str = "quantd_queue_depth";
const QUEUE_WAIT: &str = "quantd_queue_wait_seconds";
const COMPUTE: &str = "quantd_compute_seconds";
const INFLIGHT: &str = "quantd_inflight_bytes";
const INFLIGHT_LIMIT: &str = "quantd_inflight_bytes_limit";
const REJECTED: &str = "quantd_rejected_total";
const CANCELLED: &str = "quantd_cancelled_total";
const OUT_OF_TIME: &str = "quantd_out_of_time_total";
const LAYERS: &str = "quantd_layers";
const LAYER_BYTES: &str = "quantd_layer_bytes";
const LAYER_LIMIT: &str = "quantd_layer_bytes_limit";
const LAYERS_EVICTED: &str = "quantd_layers_evicted_total";
const LAYERS_REFUSED: &str = "quantd_layers_refused_total";
const LOG_LINES_LOST: &str = "quantd_log_lines_lost_total";
const BUILD_INFO: &str = "quantd_build_info";

const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Between two times that measurements are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(1);

static METRICS: OnceLock<Option<Metrics>> = OnceLock::new();

/// The recorder, and of the metrics that every request changes those that have no labels: they are
/// looked up once.
struct Metrics {
    recorder: PrometheusHandle,
    active_requests: Gauge,
    queue_depth: Gauge,
    queue_wait: Histogram,
}

impl Metrics {
    /// None before they are installed.
    fn get() -> Option<&'static Self> {
        METRICS.get()?.as_ref()
    }
}

/// Installs the metrics recorder of this process, once.
pub fn init_metrics() {
    METRICS.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .ok()?;
        let recorder = builder.install_recorder().ok()?;
        describe_histogram!(
            REQUEST_DURATION,
            "Time from the request line to the end of the answer's head"
        );
        describe_gauge!(ACTIVE_REQUESTS, "Requests being handled");
        describe_gauge!(QUEUE_DEPTH, "Requests waiting for memory or for a compute thread");
        describe_histogram!(QUEUE_WAIT, "Time that requests waited for a compute thread");
        describe_histogram!(COMPUTE, "Time on a compute thread: decode, compute, encode");
        describe_gauge!(INFLIGHT, "Bytes that requests hold");
        describe_gauge!(INFLIGHT_LIMIT, "Bytes that requests may hold");
        describe_counter!(REJECTED, "Requests refused for lack of room");
        describe_counter!(CANCELLED, "Requests whose client left before the answer");
        describe_counter!(OUT_OF_TIME, "Requests whose work was stopped because it took too long");
        describe_gauge!(LAYERS, "Layers in memory");
        describe_gauge!(LAYER_BYTES, "Bytes that layers hold in memory");
        describe_gauge!(LAYER_LIMIT, "Bytes that layers may hold in memory");
        describe_counter!(LAYERS_EVICTED, "Layers that made room for others");
        describe_counter!(LAYERS_REFUSED, "Layers that there was no room for");
        describe_counter!(
            LOG_LINES_LOST,
            "Log lines that nobody took in time, or that could not be written"
        );
        describe_gauge!(BUILD_INFO, "1, with the version as a label");
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        for counter in [CANCELLED, OUT_OF_TIME, LAYERS_EVICTED, LAYERS_REFUSED] {
            counter!(counter).absolute(0);
        }
        let queue_depth = gauge!(QUEUE_DEPTH);
        queue_depth.set(0.0);
        Some(Metrics {
            recorder,
            active_requests: gauge!(ACTIVE_REQUESTS),
            queue_depth,
            queue_wait: histogram!(QUEUE_WAIT),
        })
    });
}

/// The metrics in the text format of Prometheus; of layers their number and bytes.
#[must_use]
pub fn render_metrics(inflight_bytes: usize, (layers, layer_bytes): (usize, usize)) -> String {
    gauge!(INFLIGHT).set(inflight_bytes as f64);
    gauge!(LAYERS).set(layers as f64);
    gauge!(LAYER_BYTES).set(layer_bytes as f64);
    counter!(LOG_LINES_LOST).absolute(logs::lost_lines());
    Metrics::get().map_or_else(String::new, |Metrics { recorder, .. }| recorder.render())
}

/// Puts what was measured into its buckets, again and again; never ends. The recorder keeps
/// every single measurement until then, for ever where nobody asks for the metrics.
pub async fn tend() -> ! {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        if let Some(Metrics { recorder, .. }) = Metrics::get() {
            recorder.run_upkeep();
        }
    }
}

/// A request begins or ends.
pub(crate) fn active_requests(change: f64) {
    if let Some(metrics) = Metrics::get() {
        metrics.active_requests.increment(change);
    }
}

/// A request was answered.
pub(crate) fn request(method: &'static str, route: &str, status: u16, duration: Duration) {
    thread_local! {
        /// What the last request was counted with: under load the next one is of its kind.
        static LAST: RefCell<Option<(&'static str, String, u16, Histogram)>> =
            const { RefCell::new(None) };
    }
    if Metrics::get().is_none() {
        return;
    }
    LAST.with_borrow_mut(|last| {
        let same = |last: &(&str, String, u16, _)| {
            (last.0, last.1.as_str(), last.2) == (method, route, status)
        };
        let found = last.take().filter(same).unwrap_or_else(|| {
            let histogram = histogram!(REQUEST_DURATION,
                "http_request_method" => method,
                "http_route" => route.to_owned(),
                "http_response_status_code" => status.to_string());
            (method, route.to_owned(), status, histogram)
        });
        last.insert(found).3.record(duration.as_secs_f64());
    });
}

/// A request begins or ceases to wait.
pub(crate) fn queue_depth(change: f64) {
    if let Some(metrics) = Metrics::get() {
        metrics.queue_depth.increment(change);
    }
}

/// A request has waited.
pub(crate) fn queue_wait(duration: Duration) {
    if let Some(metrics) = Metrics::get() {
        metrics.queue_wait.record(duration.as_secs_f64());
    }
}

/// A request was computed.
pub(crate) fn computed(operation: &'static str, duration: Duration) {
    histogram!(COMPUTE, "op" => operation).record(duration.as_secs_f64());
}

/// The most bytes that requests may hold.
pub(crate) fn inflight_limit(bytes: usize) {
    gauge!(INFLIGHT_LIMIT).set(bytes as f64);
}

/// A request was refused for lack of room.
pub(crate) fn rejected(reason: &'static str) {
    counter!(REJECTED, "reason" => reason).increment(1);
}

/// A client left before its answer.
pub(crate) fn cancelled() {
    counter!(CANCELLED).increment(1);
}

/// Work was stopped because it took too long.
pub(crate) fn out_of_time() {
    counter!(OUT_OF_TIME).increment(1);
}

/// The most bytes that layers may hold.
pub(crate) fn layer_limit(bytes: usize) {
    gauge!(LAYER_LIMIT).set(bytes as f64);
}

/// A layer made room for another one.
pub(crate) fn layer_evicted() {
    counter!(LAYERS_EVICTED).increment(1);
}

/// There was no room for a layer.
pub(crate) fn layer_refused() {
    counter!(LAYERS_REFUSED).increment(1);
}
