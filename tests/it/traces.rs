//! Spans: what the operator's collector gets of an event, and what happens if there is none to get it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::metrics;
use crate::support::collector::{Collector, attribute};
use crate::support::{Api, Process, TestDb, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const PATIENCE: Duration = Duration::from_secs(10);

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// One event or several, under this request's traceparent.
async fn post(api: &Api, traceparent: Option<&str>, events: &Value) {
    let mut request = api.request(Method::POST, "/v1/events?secret=in-the-query");
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let answer = request.json(events).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

/// By name; one that stands twice fails.
fn by_name(spans: &[Span]) -> BTreeMap<String, Span> {
    let mut named = BTreeMap::new();
    for span in spans {
        let transport = attribute(span, "tidewire.transport").unwrap_or_default();
        let name = format!("{} {transport}", span.name).trim().to_owned();
        let before = named.insert(name, span.clone());
        assert!(before.is_none(), "twice: {span:?}");
    }
    named
}

/// Waits until so many spans have come.
async fn arrived(collector: &Collector, count: usize) -> Vec<Span> {
    eventually(PATIENCE, || async {
        let spans = collector.spans();
        if spans.len() >= count {
            Ok(spans)
        } else {
            let names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
            Err(names)
        }
    })
    .await
}

/// How many spans the server counts as that.
async fn counted(api: &Api, result: &str) -> u64 {
    let text = metrics::text(api).await;
    let series = format!("tidewire_spans_total{{result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("{series}")).parse().unwrap()
}

async fn start(db: &TestDb, endpoint: &str, more: &[&str]) -> Process {
    let mut arguments = vec!["--otlp-endpoint", endpoint];
    arguments.extend(more);
    Process::start(&db.url, &arguments).await
}

#[tokio::test]
async fn an_events_trace_goes_on_through_append_and_delivery() {
    let (db, collector) = (TestDb::new().await, Collector::start().await);
    let arguments = ["--otel-service-name", "log-1"];
    let server = start(&db, &collector.endpoint, &arguments).await;
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["deal.*"], "latest").await;
    let mut second = server.api.ws().await;
    second.subscribe("s", &["deal.*"], "latest").await;
    let mut stream = server.api.sse("after=latest", None).await.unwrap();
    stream.next().await.unwrap();
    let event = json!({"topic": "deal.won", "subject": "s3ntinel", "data": {"secret": "s3ntinel"}});
    post(&server.api, Some(&traceparent("01")), &event).await;
    for ws in [&mut ws, &mut second] {
        assert_eq!(
            ws.until("events").await["events"][0]["trace"],
            traceparent("01")
        );
    }
    stream.events().await.unwrap().unwrap();

    let spans = by_name(&arrived(&collector, 7).await);
    let names: Vec<_> = spans.keys().map(String::as_str).collect();
    let expected = [
        "POST /v1/events",
        "append",
        "commit",
        "deliver sse",
        "deliver websocket",
        "queue",
        "visible",
    ];
    assert_eq!(names, expected, "one delivery for two sockets");
    let parent_of = |name: &str| hex(&spans[name].parent_span_id);
    let id_of = |name: &str| hex(&spans[name].span_id);
    for span in spans.values() {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
        assert!(span.start_time_unix_nano > 0);
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano,
            "{span:?}"
        );
        assert!(!format!("{span:?}").contains("s3ntinel"), "{span:?}");
        assert!(!format!("{span:?}").contains("in-the-query"), "{span:?}");
    }
    for root in [
        "POST /v1/events",
        "visible",
        "deliver sse",
        "deliver websocket",
    ] {
        assert_eq!(parent_of(root), PARENT, "{root}");
    }
    assert_eq!(parent_of("append"), id_of("POST /v1/events"));
    assert_eq!(parent_of("queue"), id_of("append"));
    assert_eq!(parent_of("commit"), id_of("append"));
    let request = &spans["POST /v1/events"];
    assert_eq!(request.kind, i32::from(SpanKind::Server));
    assert_eq!(
        attribute(request, "http.response.status_code").unwrap(),
        "201"
    );
    let topic = attribute(&spans["deliver sse"], "messaging.destination.name");
    assert_eq!(topic.unwrap(), "deal.won");
    assert_eq!(collector.resource("service.name").unwrap(), "log-1");
    let media = collector.headers()["content-type"].clone();
    assert_eq!(media, "application/x-protobuf");
}

#[tokio::test]
async fn an_event_of_another_trace_stays_in_its_own() {
    let (db, collector) = (TestDb::new().await, Collector::start().await);
    let server = start(&db, &collector.endpoint, &[]).await;
    let other = "00-11111111111111111111111111111111-2222222222222222-01";
    let events = json!([{"topic": "a"}, {"topic": "b", "trace": other}, {"topic": "c"}]);
    post(&server.api, Some(&traceparent("01")), &events).await;
    // The request, two appends with their queues, a batch, and three events.
    let spans = arrived(&collector, 9).await;
    let of = |trace: &str, name: &str| -> Vec<Span> {
        let mine = spans.iter();
        mine.filter(|span| hex(&span.trace_id) == trace && span.name == name)
            .cloned()
            .collect()
    };
    let (own, foreign) = (of(TRACE, "append"), of(&"1".repeat(32), "append"));
    let count = |span: &Span| attribute(span, "messaging.batch.message_count").unwrap();
    assert_eq!(
        (count(&own[0]), count(&foreign[0])),
        ("2".into(), "1".into())
    );
    assert_eq!(hex(&foreign[0].parent_span_id), "2".repeat(16));
    assert_eq!(of(TRACE, "visible").len(), 2);
    // A batch has many parents: one has it as a child, the others are linked to it and it to them.
    let batch = &of(TRACE, "commit")[0];
    assert_eq!(batch.parent_span_id, own[0].span_id);
    assert_eq!(batch.links[0].span_id, foreign[0].span_id);
    assert_eq!(foreign[0].links[0].span_id, batch.span_id);
}

#[tokio::test]
async fn what_the_producer_does_not_sample_makes_no_span() {
    let (db, collector) = (TestDb::new().await, Collector::start().await);
    let server = start(&db, &collector.endpoint, &[]).await;
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["*"], "latest").await;
    post(
        &server.api,
        Some(&traceparent("00")),
        &json!({"topic": "a"}),
    )
    .await;
    ws.until("events").await;
    post(&server.api, None, &json!({"topic": "b"})).await;
    ws.until("events").await;
    // Spans leave in their order: what comes now is the first.
    post(
        &server.api,
        Some(&traceparent("01")),
        &json!({"topic": "c"}),
    )
    .await;
    for span in arrived(&collector, 5).await {
        let topic = attribute(&span, "messaging.destination.name");
        assert!(topic.is_none_or(|topic| topic == "c"), "{:?}", span.name);
        assert_eq!(hex(&span.trace_id), TRACE);
    }
}

#[tokio::test]
async fn a_trace_may_begin_here() {
    let (db, collector) = (TestDb::new().await, Collector::start().await);
    let always = ["--otel-traces-sampler", "parentbased_always_on"];
    let server = start(&db, &collector.endpoint, &always).await;
    post(&server.api, None, &json!({"topic": "b"})).await;
    let spans = by_name(&arrived(&collector, 4).await);
    assert!(spans["POST /v1/events"].parent_span_id.is_empty());
    let page = server.api.page("earliest", "").await;
    assert_eq!(page["events"][0]["trace"], Value::Null, "nothing is added");
}

/// A collector that cannot be reached, does not answer, refuses, or answers without end: nobody but the spans suffers.
#[tokio::test]
async fn a_collector_that_fails_costs_spans_and_nothing_else() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = format!("http://{}", silent.local_addr().unwrap());
    let endless = || {
        let piece = || Ok::<_, std::io::Error>(vec![b'x'; 65_536]);
        Body::from_stream(futures_util::stream::repeat_with(piece))
    };
    let refusing = Collector::answering(StatusCode::SERVICE_UNAVAILABLE, || Body::from("no")).await;
    let hostile = Collector::answering(StatusCode::OK, endless).await;
    let gone = Collector::start().await.endpoint.clone();
    for endpoint in [
        gone,
        silent_at,
        refusing.endpoint.clone(),
        hostile.endpoint.clone(),
    ] {
        let db = TestDb::new().await;
        let mut server = start(&db, &endpoint, &[]).await;
        // More spans than there is room for while one request is under way.
        let events: Vec<_> = (0..900).map(|_| json!({"topic": "a"})).collect();
        let began = Instant::now();
        for _ in 0..8 {
            post(&server.api, Some(&traceparent("01")), &json!(events)).await;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "appends are unaffected"
        );
        eventually(PATIENCE, || async {
            let failed = counted(&server.api, "failed").await;
            if failed > 0 { Ok(()) } else { Err(failed) }
        })
        .await;
        assert_eq!(counted(&server.api, "exported").await, 0, "{endpoint}");
        let began = Instant::now();
        server.terminate().await;
        assert!(
            began.elapsed() < Duration::from_secs(12),
            "it ends in time: {endpoint}"
        );
    }
}

#[tokio::test]
async fn a_slow_collector_has_a_bounded_queue_before_it() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let (db, log) = (TestDb::new().await, tempfile::tempfile().unwrap());
    let arguments = ["--otlp-endpoint", endpoint.as_str()];
    let server = Process::start_logging(&db.url, &arguments, log.try_clone().unwrap()).await;
    let events: Vec<_> = (0..1_000).map(|_| json!({"topic": "a"})).collect();
    eventually(Duration::from_secs(30), || async {
        post(&server.api, Some(&traceparent("01")), &json!(events)).await;
        let dropped = counted(&server.api, "dropped").await;
        if dropped > 0 { Ok(()) } else { Err(dropped) }
    })
    .await;
    eventually(Duration::from_secs(30), || async {
        let failed = counted(&server.api, "failed").await;
        if failed > 600 { Ok(()) } else { Err(failed) }
    })
    .await;
    let mut text = String::new();
    let mut log = log;
    std::io::Seek::rewind(&mut log).unwrap();
    std::io::Read::read_to_string(&mut log, &mut text).unwrap();
    let lines = text.matches("does not take spans").count();
    assert_eq!(lines, 1, "one line, however many are lost: {text}");
}

#[tokio::test]
async fn what_is_left_is_sent_when_the_server_ends() {
    let (db, collector) = (TestDb::new().await, Collector::start().await);
    let mut server = start(&db, &collector.endpoint, &[]).await;
    post(
        &server.api,
        Some(&traceparent("01")),
        &json!({"topic": "a"}),
    )
    .await;
    assert_eq!(collector.requests(), 0, "it still waits for company");
    server.terminate().await;
    let spans = by_name(&collector.spans());
    assert!(
        spans.contains_key("append") && spans.contains_key("commit"),
        "{spans:?}"
    );
}

/// What a collector takes of a request and what not is its answer's to say, not the status'.
#[tokio::test]
async fn spans_that_a_collector_rejects_are_counted_and_told_of_once_in_a_while() {
    let answer = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "too old for this collector".to_owned(),
        }),
    };
    let answer = answer.encode_to_vec();
    let collector = Collector::answering(StatusCode::OK, move || answer.clone().into()).await;
    let (db, mut log) = (TestDb::new().await, tempfile::tempfile().unwrap());
    let arguments = ["--otlp-endpoint", collector.endpoint.as_str()];
    let server = Process::start_logging(&db.url, &arguments, log.try_clone().unwrap()).await;
    let mut requests = 0;
    while requests < 3 {
        post(
            &server.api,
            Some(&traceparent("01")),
            &json!({"topic": "a"}),
        )
        .await;
        requests = eventually(PATIENCE, || async {
            let now = collector.requests();
            (now > requests).then_some(now).ok_or(now)
        })
        .await;
    }
    eventually(PATIENCE, || async {
        let (rejected, exported) = (
            counted(&server.api, "rejected").await,
            counted(&server.api, "exported").await,
        );
        let (sent, requests) = (collector.spans().len(), collector.requests());
        let (sent, requests) = (
            u64::try_from(sent).unwrap(),
            u64::try_from(requests).unwrap(),
        );
        let is_right = rejected == 2 * requests && exported == sent - rejected;
        is_right.then_some(()).ok_or((rejected, exported, sent))
    })
    .await;
    assert_eq!(counted(&server.api, "failed").await, 0);
    let mut text = String::new();
    std::io::Seek::rewind(&mut log).unwrap();
    std::io::Read::read_to_string(&mut log, &mut text).unwrap();
    assert_eq!(
        text.matches("too old for this collector").count(),
        1,
        "{text}"
    );
}
