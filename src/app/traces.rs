//! What a server counts, and where its spans go.

use super::StartError;
use crate::config;
use crate::tasks::Tasks;
use crate::telemetry::{Exporter, Metrics, Sampling, TracesSettings};

/// The server's metrics, with traces if a collector is set. Spans are sent until `tasks` stop, and then what is left of them.
pub(super) fn metrics(config: &config::Traces, tasks: &Tasks) -> Result<Metrics, StartError> {
    let share = config.otel_traces_sampler_arg;
    let sampling = Sampling::new(&config.otel_traces_sampler, share)?;
    let Some(endpoint) = config.endpoint() else {
        return Ok(Metrics::new());
    };
    let (metrics, exporter) = Exporter::new(TracesSettings {
        endpoint,
        service: config.otel_service_name.clone(),
        sampling,
    })?;
    tasks.spawn(exporter.run(tasks.token().clone()));
    Ok(metrics)
}
