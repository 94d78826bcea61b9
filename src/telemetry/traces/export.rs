//! Spans on their way to the operator's collector: OTLP over HTTP, protobuf.
//!
//! # Invariants
//! - One request at a time, each with an end; what cannot be sent is dropped and counted, never tried again.
//! - Its state is logged when it changes, not for each request; what it rejects of requests that it takes, once a minute.

use std::time::Duration;

use opentelemetry_otlp::{
    ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, Partial, Said};
use super::span::SpanData;
use super::{Inner, Sampling, Traces};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::SpanFate;

/// Spans that wait.
const QUEUE_SPANS_MAX: usize = 4_096;
/// Spans of one request.
const BATCH_SPANS_MAX: usize = 512;
/// How long spans wait for company.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is left is sent at the end.
const FLUSH: Duration = Duration::from_secs(2);
/// Between two lines about what is rejected.
const REJECTED_REST: Duration = Duration::from_mins(1);

/// Where spans go, and which.
#[derive(Debug, Clone)]
pub struct TracesSettings {
    /// Where the collector takes traces: `http://collector:4318/v1/traces`.
    pub endpoint: String,
    /// What this server is called.
    pub service: String,
    /// Which traces are recorded.
    pub sampling: Sampling,
}

/// Spans cannot be exported as it is set.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The exporter's own settings.
    #[error("traces cannot be exported: {0}. Look at the OTEL_EXPORTER_OTLP_* variables")]
    Settings(#[from] ExporterBuildError),
    /// No HTTP client.
    #[error("traces cannot be exported: {0}")]
    Client(#[from] reqwest::Error),
}

/// Sends spans; see the module.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    collector: SpanExporter,
    /// What the collector has said of the last request.
    said: Said,
    metrics: Metrics,
    is_up: Option<bool>,
    rejected: Rejected,
}

/// What has been rejected since the last line about it.
#[derive(Debug, Default)]
struct Rejected {
    spans: u64,
    told_at: Option<Instant>,
}

impl Rejected {
    /// Logs it, once in a while.
    fn tell(&mut self, spans: u64, message: &str) {
        self.spans = self.spans.saturating_add(spans);
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= REJECTED_REST);
        if is_due {
            self.told_at = Some(Instant::now());
            let spans = std::mem::take(&mut self.spans);
            tracing::warn!(
                spans,
                message,
                "the collector takes requests, but not all of their spans, or has something to say of them"
            );
        }
    }
}

impl Exporter {
    /// Metrics with traces that this exporter sends.
    ///
    /// # Errors
    /// If there is no way to send them.
    pub fn new(settings: TracesSettings) -> Result<(Metrics, Self), ExporterError> {
        // Err: somebody installed one before, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if settings.endpoint.starts_with("http:") {
            // A machine without any root certificate can still talk to a collector nearby.
            client = client.tls_certs_only(std::iter::empty());
        }
        let said = Said::default();
        let mut collector = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(client.build()?, said.clone()))
            .with_endpoint(settings.endpoint)
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        let service = Resource::builder().with_service_name(settings.service);
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        collector.set_resource(&service.with_attribute(version).build());
        let (queue, spans) = mpsc::channel(QUEUE_SPANS_MAX);
        let metrics = Metrics::tracing(|metrics| {
            Traces(Some(std::sync::Arc::new(Inner {
                queue,
                sampling: settings.sampling,
                metrics,
            })))
        });
        let exporter = Self {
            spans,
            collector,
            said,
            metrics: metrics.clone(),
            is_up: None,
            rejected: Rejected::default(),
        };
        Ok((metrics, exporter))
    }

    /// Sends what comes until `stop`, and then what is left, if it can be sent soon.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        while stop
            .run_until_cancelled(self.gather(&mut batch))
            .await
            .is_some()
        {
            let spans = std::mem::take(&mut batch);
            self.send(spans, Instant::now() + TIMEOUT).await;
        }
        self.spans.close();
        let deadline = Instant::now() + FLUSH;
        loop {
            let room = BATCH_SPANS_MAX.saturating_sub(batch.len());
            while batch.len() < BATCH_SPANS_MAX
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            if room > 0 && batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch), deadline).await;
        }
    }

    /// Waits for spans, and a moment for more. Dropped, it leaves in `batch` what it has taken.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        let Some(first) = self.spans.recv().await else {
            return std::future::pending().await;
        };
        batch.push(first);
        let more = async {
            while batch.len() < BATCH_SPANS_MAX {
                match self.spans.recv().await {
                    Some(span) => batch.push(span),
                    None => return,
                }
            }
        };
        let _ = timeout(BATCH_WAIT, more).await;
    }

    async fn send(&mut self, batch: Vec<SpanData>, deadline: Instant) {
        let spans = batch.len();
        let sent = timeout_at(deadline, self.collector.export(batch)).await;
        let failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it took too long".to_owned()),
        };
        let partial = self.said.take();
        let is_up = failure.is_none();
        if !is_up {
            self.metrics.spans.count(SpanFate::Failed, spans);
        } else if let Some(Partial { rejected, message }) = partial {
            // It cannot reject more than it was sent.
            let rejected = rejected.min(u64::try_from(spans).unwrap_or(u64::MAX));
            let gone = usize::try_from(rejected).unwrap_or(usize::MAX);
            self.metrics.spans.count(SpanFate::Rejected, gone);
            let taken = spans.saturating_sub(gone);
            self.metrics.spans.count(SpanFate::Exported, taken);
            self.rejected.tell(rejected, &message);
        } else {
            self.metrics.spans.count(SpanFate::Exported, spans);
        }
        match (self.is_up.replace(is_up), failure) {
            (Some(true) | None, Some(error)) => {
                tracing::warn!(
                    error,
                    "the collector does not take spans: they are dropped until it does"
                );
            }
            (Some(false), None) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}
