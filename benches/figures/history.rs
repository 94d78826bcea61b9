//! Reading a page somewhere in a long history, against the same in a short one.

use std::time::Instant;

use crate::server::{Database, Server};
use crate::wire::Http;
use crate::{Figure, percentile};

const CHUNKS: i32 = 100;
const EVENTS_PER_CHUNK: i32 = 50_000;
const READS: i64 = 400;
/// The newest events, which the window may hold.
const NEWEST: i64 = 30_000;

pub async fn run() -> Figure {
    let mut long = History::new("history_long", CHUNKS).await;
    let mut short = History::new("history_short", 1).await;
    let (mut of_long, mut of_short) = (Vec::new(), Vec::new());
    // In turn, so that both see the same machine.
    for read in 0..usize::try_from(READS).unwrap() {
        of_long.push(long.read(read).await);
        of_short.push(short.read(read).await);
    }
    long.end().await;
    short.end().await;
    let (ours, theirs) = (
        percentile(&mut of_long, 0.5),
        percentile(&mut of_short, 0.5),
    );
    Figure {
        what: "read latency (page of 100, median) at 5 million events in 100 chunks · at 50,000 in one",
        ours: format!("{ours:.2} ms"),
        against: format!("{theirs:.2} ms"),
        ratio: ours / theirs,
        reach: "≤ 1.5",
    }
}

struct History {
    database: Database,
    server: Server,
    http: Http,
    cursors: Vec<String>,
}

impl History {
    async fn new(name: &str, chunks: i32) -> Self {
        let database = Database::new(name).await;
        let client = database.connect().await;
        // Rows of the past cannot be written through the log's triggers: these are put in as a restore would.
        client
            .batch_execute("SET session_replication_role = replica")
            .await
            .unwrap();
        for chunk in 0..chunks {
            client
                .execute(
                    "INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject, source, data)
                     SELECT now() - make_interval(days => $1::int) + make_interval(secs => n), 'dev',
                            $1::text || '-' || n, 'agent.state.updated', 'agent-' || n % 50, 'bench',
                            '{\"status\":\"running\",\"progress\":0.5}'
                       FROM generate_series(1, $2::int) AS n",
                    &[&(chunks - chunk), &EVENTS_PER_CHUNK],
                )
                .await
                .unwrap();
        }
        database.settle().await;
        let server = Server::start(&database, &[]).await;
        let http = Http::connect(&server.address).await;
        // Spread over the history, never twice the same, and never in the window.
        let usable = i64::from(chunks) * i64::from(EVENTS_PER_CHUNK) - NEWEST;
        let places: Vec<i64> = (0..READS)
            .map(|read| (read * 7_919 * 31 + 17) % usable + 1)
            .collect();
        let mut cursors: Vec<(i64, String)> = client
            .query(
                "SELECT seq, tidewire.cursor(seq, recorded_at) FROM tidewire.events WHERE seq = ANY ($1)",
                &[&places],
            )
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        assert_eq!(cursors.len(), places.len(), "every place has an event");
        // In the order of the places, which jump about.
        cursors.sort_by_key(|(seq, _)| places.iter().position(|place| place == seq));
        let cursors = cursors.into_iter().map(|(_, cursor)| cursor).collect();
        Self {
            database,
            server,
            http,
            cursors,
        }
    }

    /// Reads the page after the cursor of that number; how long it took, in milliseconds.
    async fn read(&mut self, number: usize) -> f64 {
        let path = format!("/v1/events?after={}&limit=100", self.cursors[number]);
        let request = Http::get(&self.server.address, &path);
        let began = Instant::now();
        let (status, body) = self.http.send(&request).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{body}");
        assert_eq!(body.matches("\"topic\"").count(), 100, "{body}");
        took
    }

    async fn end(self) {
        self.server.stop().await;
        self.database.drop().await;
    }
}
