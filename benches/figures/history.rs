//! Reading a page somewhere in a long history, against the same in a short one.

use std::time::Instant;

use crate::server::{Database, Server};
use crate::wire::Http;
use crate::{Figure, percentile};

const CHUNKS: i64 = 100;
const EVENTS_PER_CHUNK: i64 = 50_000;
const READS: i64 = 400;

pub async fn run() -> Figure {
    let short = measure(1).await;
    let long = measure(CHUNKS).await;
    Figure {
        what: "read latency (page of 100, median) at 5 million events in 100 chunks · at 50,000 in one",
        ours: format!("{long:.2} ms"),
        against: format!("{short:.2} ms"),
        ratio: long / short,
        reach: "≤ 1.5",
    }
}

async fn measure(chunks: i64) -> f64 {
    let database = Database::new("history").await;
    let client = database.connect().await;
    // Rows of the past cannot be written through the log's triggers: these are put in as a restore would.
    client
        .batch_execute("SET session_replication_role = replica")
        .await
        .unwrap();
    for chunk in 0..chunks {
        let days_ago = chunks - chunk;
        client
            .execute(
                "INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject, source, data)
                 SELECT now() - make_interval(days => $1::int) + make_interval(secs => n), 'dev', $1::text || '-' || n,
                        'agent.state.updated', 'agent-' || n % 50, 'bench', '{\"status\":\"running\",\"progress\":0.5}'
                   FROM generate_series(1, $2::int) AS n",
                &[&i32::try_from(days_ago).unwrap(), &i32::try_from(EVENTS_PER_CHUNK).unwrap()],
            )
            .await
            .unwrap();
    }
    database.settle().await;
    let server = Server::start(&database, &[]).await;
    let mut http = Http::connect(&server.address).await;
    let total = chunks * EVENTS_PER_CHUNK;
    let mut delays = Vec::new();
    for read in 0..READS {
        // Spread over the history, never twice the same, and never in the window.
        let seq = (read * 7_919 * 31 + 17) % (total - 30_000);
        let cursor: String = client
            .query_one(
                "SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events WHERE seq = $1",
                &[&seq.max(1)],
            )
            .await
            .unwrap()
            .get(0);
        let request = Http::get(
            &server.address,
            &format!("/v1/events?after={cursor}&limit=100"),
        );
        let began = Instant::now();
        let (status, body) = http.send(&request).await;
        delays.push(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }
    server.stop().await;
    database.drop().await;
    percentile(&mut delays, 0.5)
}
