//! Settings: where spans go. The names in the environment are those of the OpenTelemetry standard.

use clap::Args;
use url::Url;

/// Where spans go.
#[derive(Debug, Clone, Args)]
pub struct Traces {
    /// A collector that takes OTLP over HTTP, such as <http://collector:4318>; absent: no spans are made.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = endpoint, value_name = "URL")]
    pub otlp_endpoint: Option<Url>,

    /// Where it takes traces, if that is not `/v1/traces` below the endpoint.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_parser = endpoint, value_name = "URL")]
    pub otlp_traces_endpoint: Option<Url>,

    /// What this server is called in its spans.
    #[arg(
        long,
        env = "OTEL_SERVICE_NAME",
        default_value = "tidewire",
        value_name = "NAME"
    )]
    pub otel_service_name: String,

    /// Which traces are recorded: `always_on`, `always_off` or traceidratio, or one of them behind `parentbased_`, which
    /// leaves it to whoever began the trace and decides for those that begin here alone.
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER",
        default_value = "parentbased_always_off",
        value_name = "NAME"
    )]
    pub otel_traces_sampler: String,

    /// The share of traces that traceidratio records, 0 to 1.
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value_t = 1.0,
        value_name = "SHARE"
    )]
    pub otel_traces_sampler_arg: f64,
}

impl Traces {
    /// Where spans are sent; none: nowhere.
    #[must_use]
    pub fn endpoint(&self) -> Option<String> {
        if let Some(exact) = &self.otlp_traces_endpoint {
            return Some(exact.as_str().to_owned());
        }
        let base = self.otlp_endpoint.as_ref()?;
        Some(format!("{}/v1/traces", base.as_str().trim_end_matches('/')))
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let sentence = "write where the collector takes OTLP over HTTP, such as http://127.0.0.1:4318; what it wants of \
                    credentials goes into OTEL_EXPORTER_OTLP_HEADERS";
    let url = Url::parse(text).map_err(|_| sentence.to_owned())?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    if is_plain && is_http && url.query().is_none() && url.fragment().is_none() {
        Ok(url)
    } else {
        Err(sentence.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_stands_below_the_endpoint_or_is_named() {
        let traces = |base: Option<&str>, exact: Option<&str>| {
            let url = |text: &str| endpoint(text).unwrap();
            Traces {
                otlp_endpoint: base.map(url),
                otlp_traces_endpoint: exact.map(url),
                otel_service_name: String::new(),
                otel_traces_sampler: String::new(),
                otel_traces_sampler_arg: 1.0,
            }
            .endpoint()
        };
        assert_eq!(traces(None, None), None);
        let base = "http://c:4318";
        assert_eq!(traces(Some(base), None).unwrap(), "http://c:4318/v1/traces");
        assert_eq!(
            traces(Some("http://c/otlp/"), None).unwrap(),
            "http://c/otlp/v1/traces"
        );
        assert_eq!(
            traces(Some(base), Some("http://d/x")).unwrap(),
            "http://d/x"
        );
        for bad in [
            "c:4318",
            "grpc://c:4317",
            "http://a:b@c",
            "http://c?token=x",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
