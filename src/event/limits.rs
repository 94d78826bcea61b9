//! Bounds that clients and operators meet, with what happens at each.
//!
//! Those an operator may want to change are settings (`config`) whose defaults stand here; the rest are part of the
//! contract or of the design. What one module alone is concerned with (how long it rests, how much one of its statements takes, how
//! long a credential, a header or a field of its own may be, when a schema is too large) stands there.

use std::time::Duration;

/// Segments of a topic. More: the event is refused.
pub const TOPIC_SEGMENTS_MAX: usize = 8;
/// Bytes of a topic, an id, a subject, a source, a content type. More: the event is refused.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a tenant's name or a region.
pub const SHORT_NAME_BYTES_MAX: usize = 64;
/// Bytes of an event's `gdpr` object.
pub const GDPR_BYTES_MAX: usize = 2048;
/// Bytes of an event's data as PostgreSQL prints it, or of its decoded bytes. More: `413`.
pub const DATA_BYTES_MAX: usize = 256 * 1024;
/// Nesting of an event's data. More: `422 unstorable-data`. PostgreSQL's own parser gives up at some thousands.
pub const DATA_DEPTH_MAX: usize = 128;
/// Fields of an event's object, known or not. More: the event is refused before the rest is read.
pub const EVENT_FIELDS_MAX: usize = 64;
/// Events of one array. More: `413`; use NDJSON.
pub const ARRAY_EVENTS_MAX: usize = 1_000;
/// Bytes of a request body that is not streamed. More: `413`.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of all request bodies that are held at once: as they come, until they are answered. More: `503` with `Retry-After`,
/// and of NDJSON an error line, and the upload ends. Beyond half of it uploads do not read ahead.
pub const BODIES_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of each body or message that do not count: a connection's own buffers hold as much.
pub const SHARE_BYTES_FREE: usize = 16 * 1024;
/// Bytes of one line of NDJSON: one event and its envelope. Longer: that line is refused.
pub const LINE_BYTES_MAX: usize = DATA_BYTES_MAX * 2;
/// Events of one NDJSON chunk, committed together at most. Their statement takes about 40 ms, for which the watermark
/// stands; half as many cost a tenth of the throughput.
pub const CHUNK_EVENTS_MAX: usize = 2_000;
/// Bytes of one NDJSON chunk.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// What an upload may inflate to whatever came in. More: [`INFLATION_MAX`] counts.
pub const INFLATED_BYTES_FREE: u64 = 64 * 1024 * 1024;
/// How many times what came in an upload may inflate to; gzip reaches 1,030 for one byte over and over. More: `413`, and
/// the upload ends.
pub const INFLATION_MAX: u64 = 1_000;
/// Bytes of an upload that are worked through before others get to work.
pub const UPLOAD_TURN_BYTES: usize = 64 * 1024;

/// Events of one statement of the group commit. What does not fit waits for the next.
pub const BATCH_EVENTS_MAX: usize = 2_000;
/// Bytes of data of one statement of the group commit.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests waiting for the group commit. More: `503` with `Retry-After`.
pub const APPEND_QUEUE_MAX: usize = 4_096;
/// Bytes of data waiting for the group commit. More: `503` with `Retry-After`.
pub const APPEND_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Who is refused because the queue is full is told to come back after this time at least.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// And at most.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// How long an append may take, reconnects and retries included. Longer: `503`; the outcome is unknown, a retry is safe.
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an append is held at most while the database is away, if the client asks for it (`Prefer: wait`).
pub const APPEND_WAIT_MAX: Duration = Duration::from_mins(1);

/// The longest interval of a subscription that is conflated.
pub const CONFLATE_MS_MAX: u64 = 60_000;
/// Pages of an interval that become one frame, unless they fill a page ([`PAGE_BYTES_MAX`]) before: what is left follows at once.
pub const CONFLATED_PAGES_MAX: u32 = 16;

/// Events of one page.
pub const PAGE_EVENTS_MAX: usize = 1_000;
/// Events of one page if the request does not say.
pub const PAGE_EVENTS: usize = 100;
/// Events that a stream or a socket is handed at once: small, so that a live reader need not wait for a reader that has
/// much to catch up with.
pub const CATCH_UP_EVENTS: usize = 250;
/// Bytes of one page or frame: a page ends early rather than grow beyond this (it always holds one event).
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Rows a page of a filter that rarely matches may look at before it answers with what it has.
pub const PAGE_SCAN_MAX: usize = 5_000;
/// Longest wait of a long-poll. More: `400`.
pub const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long an audit waits until what is committed can be read. Then `503`: it never counts too little.
pub const AUDIT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for `at_least`. Then `503`.
pub const AT_LEAST_WAIT_MAX: Duration = Duration::from_secs(10);

/// Topic patterns of one reader. More: `400`.
pub const FILTER_TOPICS_MAX: usize = 100;
/// Subjects of one reader. More: `400`.
pub const FILTER_SUBJECTS_MAX: usize = 1_000;
/// Subscriptions of one WebSocket. More: an error frame.
pub const SUBSCRIPTIONS_MAX: usize = 100;
/// Topics and subjects of all subscriptions of one WebSocket, each of which costs about 250 bytes. More: an error frame.
pub const SOCKET_NAMES_MAX: usize = 10_000;
/// Bytes of a frame that a client may send. More: close 1009.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all messages of `WebSockets` that are not complete. More: close 1013 of the one that sends on.
pub const MESSAGES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Appends of one WebSocket under way at once. More: the socket is not read until one has ended.
pub const SOCKET_APPENDS_MAX: usize = 16;
/// Open connections: sockets, streams, waiting long-polls, uploads. More: `503` or close 1013; of one tenant: `429`.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Subscriptions of all `WebSockets`. More: an error frame.
pub const SUBSCRIPTIONS_TOTAL_MAX: usize = 200_000;
/// Bytes that a socket, a stream or a waiting long-poll is counted as beside what it subscribes to and what waits for its
/// client: a socket's buffers.
pub const SESSION_BYTES: usize = 8 * 1024;
/// Bytes that each topic or subject of a subscription is counted as.
pub const SESSION_NAME_BYTES: usize = 250;
/// Bytes that all sessions may hold: as much for each connection as its own buffers hold. More: the idle and then the slowest
/// are closed with 1013, and where there are none a new one gets `503`, and a subscription an error frame.
pub const SESSIONS_BYTES_MAX: usize = CONNECTIONS_MAX * SHARE_BYTES_FREE;
/// A socket without a subscription that has neither asked for anything nor been handed anything for so long is idle: it is
/// closed first where memory is short.
pub const SESSION_IDLE: Duration = Duration::from_mins(1);
/// Frames in a row that a `WebSocket` sends beyond its rate, each told when to come back. More: close 4429.
pub const RATE_REFUSALS_MAX: u32 = 100;
/// How long a chunk of an upload waits for its rate. Longer: an error line, and the upload ends.
pub const UPLOAD_WAIT_MAX: Duration = Duration::from_mins(1);

/// What one tenant may hold of something of which so much is free: three times as much. One alone gets three quarters of
/// all, two of them three sevenths each, and whoever comes next always finds something.
#[must_use]
pub const fn share_of(free: usize) -> usize {
    free.saturating_mul(3)
}

/// Requests of one HTTP/2 connection under way at once, each of which may hold a page. More: they wait at the client.
pub const STREAMS_MAX: u32 = 32;

/// Rows the tail reads at once.
pub const TAIL_PAGE_EVENTS: usize = 2_000;
/// Bytes the tail reads at once.
pub const TAIL_PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Rows of own commits on their way to the tail. More: the tail reads them from the log.
pub const INBOX_ROWS_MAX: usize = 8_000;
/// Bytes of own commits on their way to the tail. More: the tail reads them from the log.
pub const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events in the window.
pub const WINDOW_EVENTS: usize = 100_000;
/// Bytes of the window.
pub const WINDOW_BYTES: usize = 64 * 1024 * 1024;
/// A tenant that nobody reads and for which nothing has come for so long gives way first where the window is full.
pub const WINDOW_IDLE: Duration = Duration::from_mins(5);
/// So many of its newest events it keeps all the same, as long as it does not hold most of all.
pub const WINDOW_IDLE_EVENTS: usize = PAGE_EVENTS;
/// Bytes of history pages kept for readers that ask for the same.
pub const PAGE_CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Reads of history under way at once.
pub const HISTORY_READS: usize = 4;

/// Of what administrators ask of the log so much is under way at once that may take long: a person's events, an erasure.
pub const ADMINISTRATION_LONG: usize = 1;
/// And so much that is soon done.
pub const ADMINISTRATION_BRIEF: usize = 2;
/// Bytes of an administrative request's body. More: `413`. A schema of 64 KiB fits, as people indent it.
pub const ADMINISTRATION_BODY_BYTES_MAX: usize = 256 * 1024;
/// Administrative requests of a tenant that wait for any of these at once. More: `429`.
pub const ADMINISTRATION_WAITING_MAX: usize = 32;

/// How long an administrative request waits for its turn to ask the log, or to have a schema checked. Longer: `503`.
pub const ADMINISTRATION_TURN_MAX: Duration = Duration::from_secs(10);
/// And to read or change credentials and settings. Longer: `503`.
pub const CREDENTIALS_TURN_MAX: Duration = Duration::from_secs(2);
/// Reads of credentials and settings by administrators under way at once. More: they wait for their turn.
pub const CREDENTIAL_LISTS_MAX: usize = 4;

/// API keys of a tenant in force at once. More: `409`.
pub const KEYS_MAX: i64 = 10_000;
/// Revocations of a tenant in force at once. More: `409`.
pub const REVOCATIONS_MAX: i64 = 10_000;
/// API keys or revocations in one answer. More: it says `has_more`.
pub const LIST_MAX: i64 = 1_000;
/// API keys that a server remembers. More: the one that was used least is looked up again.
pub const KEYS_KNOWN_MAX: u64 = 50_000;
/// API keys that are looked up at once. More: they wait, and are answered `503` where that takes too long.
pub const KEY_LOOKUPS_MAX: usize = 4;

/// Rules of retention that a tenant may have. More: `409`.
pub const RULES_MAX: i64 = 100;
/// Watches that a tenant may have. More: `409`.
pub const WATCHES_MAX: i64 = 100;
/// Topic patterns of a watch. More: `400`.
pub const WATCH_TOPICS_MAX: usize = 10;
/// Seconds for which a watched subject may be silent at most: a week. More: `400`.
pub const WATCH_WITHIN_S_MAX: i32 = 604_800;
/// Subjects of a watch. More: they are not watched, and `tidewire.watch.full` and `overflowed_at` say so.
pub const WATCHED_MAX: i64 = 10_000;
/// Topics that a tenant may declare. More: `409`.
pub const DECLARED_MAX: i64 = 100;
/// Values of all schemas of a tenant, with their references. More: `422`.
pub const TENANT_VALUES_MAX: usize = 100_000;
/// Regular expressions of all schemas of a tenant, with their references. More: `422`.
pub const TENANT_PATTERNS_MAX: usize = 100;
/// Tenants whose settings are read at once. More: they wait, and are answered `503` where that takes too long.
pub const SETTINGS_READS_MAX: usize = 4;
/// Bytes of all tenants' settings that are remembered, their schemas ready to be asked. More: those that were asked for least
/// recently are read again when they are needed.
pub const SETTINGS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of a request's head, and of what an HTTP/1 connection reads ahead of a body. A longer head: `431`.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;
/// How long a browser may keep what it was told about other origins.
pub const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(1);

/// How long a connection may take to send a request's head, idle ones between two requests too. Longer: it is closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an upload may send nothing, or a client take nothing of what is written. Longer: `408` where an answer is
/// possible, else the line is cut.
pub const LINE_IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a body that is not streamed may take, or a line of NDJSON: 8 MiB at 28 kB a second. Longer: `408`.
pub const BODY_TIMEOUT: Duration = Duration::from_mins(5);
/// Bytes of a refused request's body that are still read, so that its sender gets the answer. More: the line is cut.
pub const UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long they are read. Longer: the line is cut.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message of a WebSocket may take from its first byte to its last, whatever comes in between. Longer: close 4408.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_mins(1);
/// A WebSocket that has not taken a frame for this long is closed: it resumes with its cursor.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last frame of a WebSocket may take. Longer: the line is cut.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A socket that the server closes waits for so long for the outcome of what it was sent to store. Then: it is closed without.
pub const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// Heartbeat of a WebSocket. Two without a sign of life: close 4408.
pub const WS_HEARTBEAT: Duration = Duration::from_secs(30);
/// Heartbeat of an SSE stream.
pub const SSE_HEARTBEAT: Duration = Duration::from_secs(15);
/// The safety poll: what a lost NOTIFY can cost.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A database connection that has not answered for this long is replaced.
pub const DATABASE_SILENCE_MAX: Duration = Duration::from_secs(5);
/// A statement that takes longer is ended by the database itself, before its connection is given up: else its backend
/// would go on for nobody, as long as a lock is in its way.
pub const STATEMENT_MAX: Duration = Duration::from_millis(4_500);

const _: () = assert!(STATEMENT_MAX.as_millis() < DATABASE_SILENCE_MAX.as_millis());
const _: () = assert!(SESSION_BYTES <= SHARE_BYTES_FREE);
const _: () = assert!(PAGE_EVENTS <= PAGE_EVENTS_MAX);
const _: () = assert!(PAGE_EVENTS_MAX <= PAGE_SCAN_MAX);
const _: () = assert!(TAIL_PAGE_EVENTS <= WINDOW_EVENTS);
const _: () = assert!(CHUNK_EVENTS_MAX <= BATCH_EVENTS_MAX && ARRAY_EVENTS_MAX <= BATCH_EVENTS_MAX);
const _: () = assert!(CHUNK_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(DATA_BYTES_MAX < BODY_BYTES_MAX && DATA_BYTES_MAX < FRAME_BYTES_MAX);
