//! An OTLP collector: HTTP and protobuf, as the standard has them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// See the module. Dropped, it is gone.
pub struct Collector {
    /// What `--otlp-endpoint` wants.
    pub endpoint: String,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    headers: Arc<Mutex<HeaderMap>>,
    serving: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// One that takes what comes.
    pub async fn start() -> Self {
        Self::answering(StatusCode::OK, || Vec::new().into()).await
    }

    /// One that answers like this.
    pub async fn answering(
        status: StatusCode,
        body: impl Fn() -> axum::body::Body + Clone + Send + Sync + 'static,
    ) -> Self {
        let (got, headers) = (Arc::default(), Arc::new(Mutex::new(HeaderMap::new())));
        let kept: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::clone(&got);
        let seen = Arc::clone(&headers);
        let take = move |headers: HeaderMap, bytes: Bytes| async move {
            *seen.lock().unwrap() = headers;
            let request = ExportTraceServiceRequest::decode(bytes).expect("OTLP");
            kept.lock().unwrap().push(request);
            (status, body())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take));
        #[expect(clippy::disallowed_methods, reason = "aborted when dropped")]
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            endpoint,
            got,
            headers,
            serving,
        }
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// The headers of the last one.
    pub fn headers(&self) -> HeaderMap {
        self.headers.lock().unwrap().clone()
    }

    /// All spans that came.
    pub fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let of_resources = got.iter().flat_map(|request| &request.resource_spans);
        let of_scopes = of_resources.flat_map(|of| &of.scope_spans);
        of_scopes.flat_map(|of| of.spans.clone()).collect()
    }

    /// What the sender says of itself.
    pub fn resource(&self, key: &str) -> Option<String> {
        let got = self.got.lock().unwrap();
        let resource = got.first()?.resource_spans.first()?.resource.as_ref()?;
        let found = resource.attributes.iter().find(|one| one.key == key)?;
        Some(plain(found.value.as_ref()?.value.as_ref()?))
    }
}

/// An attribute of a span, as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|one| one.key == key)?;
    Some(plain(found.value.as_ref()?.value.as_ref()?))
}

fn plain(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
