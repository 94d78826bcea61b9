//! One look at the end of the log: the watermark first, then, in a new snapshot, the rows up to it.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::error::Unavailable;
use super::row::event_columns;
use super::rows::{self, Appetite};
use crate::event::limits::{
    DATABASE_SILENCE_MAX, STATEMENT_MAX, TAIL_PAGE_BYTES_MAX, TAIL_PAGE_EVENTS,
};
use crate::event::{Position, Seq};
use crate::pg::Connector;

const WATERMARK: &str = "SELECT watermark, newest, holder FROM tidewire.watermark()";
/// Sent together with WATERMARK in one round trip; its snapshot is taken after that statement has ended. Rows above the
/// watermark are cut off by the caller.
const NEW_EVENTS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM tidewire.events AS e
      WHERE e.seq > $1 AND e.recorded_at >= $2 ORDER BY e.seq LIMIT $3"
);
/// The newest event at or below a place: where to begin, and from when on to look.
const BEGIN_AT: &str =
    "SELECT seq, recorded_at FROM tidewire.events WHERE seq <= $1 ORDER BY seq DESC LIMIT 1";

/// With few chunks one plan for all looks is cheapest: making one anew takes longer than the look. With many, a plan
/// that knows the time leaves out the old chunks before it locks them.
const ONE_PLAN_CHUNKS_MAX: i64 = 16;
const CHUNKS: &str = "
    SELECT count(*) FROM timescaledb_information.chunks
     WHERE hypertable_schema = 'tidewire' AND hypertable_name = 'events'";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[WATERMARK, NEW_EVENTS, BEGIN_AT, CHUNKS];

/// What a look found.
#[derive(Debug)]
pub struct Look {
    /// The watermark: no open transaction can still commit an event at or below it.
    pub safe: Seq,
    /// The newest place that was handed out.
    pub newest: Seq,
    /// The backend behind the lowest floor.
    pub holder: Option<i32>,
    /// Ascending; those above `safe` are not to be used.
    pub rows: Vec<Row>,
    /// There may be more.
    pub is_full: bool,
}

/// The connection that looks.
#[derive(Debug)]
pub struct Looker {
    /// For what else is asked at a reconnect.
    pub client: Client,
    watermark: Statement,
    new_events: Statement,
    appetite: Appetite,
}

impl Looker {
    /// Connects and prepares.
    ///
    /// # Errors
    /// If the database does not answer in time.
    pub async fn connect(connector: &Connector) -> Result<Self, Unavailable> {
        let client = connector.connect("tail").await?;
        let bounded = format!("SET statement_timeout = {}", STATEMENT_MAX.as_millis());
        let prepared = async {
            client.batch_execute(&bounded).await?;
            let chunks: i64 = client.query_one(CHUNKS, &[]).await?.try_get(0)?;
            let one_plan = "SET plan_cache_mode = force_generic_plan; SET jit = off";
            let plan_each = "SET plan_cache_mode = force_custom_plan; SET jit = off";
            let mode = if chunks <= ONE_PLAN_CHUNKS_MAX {
                one_plan
            } else {
                plan_each
            };
            client.batch_execute(mode).await?;
            let (watermark, new_events) = (
                client.prepare(WATERMARK).await?,
                client.prepare(NEW_EVENTS).await?,
            );
            Ok::<_, tokio_postgres::Error>((watermark, new_events))
        };
        let (watermark, new_events) = tokio::time::timeout(DATABASE_SILENCE_MAX, prepared)
            .await
            .map_err(|_| Unavailable::Silent)?
            .map_err(Unavailable::from)?;
        Ok(Self {
            client,
            watermark,
            new_events,
            appetite: Appetite::new(TAIL_PAGE_EVENTS),
        })
    }

    /// Where a tail begins: `back` places before the watermark, or where retention ends; and the watermark.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn begin_at(
        &self,
        retained: Position,
        back: Seq,
    ) -> Result<(Position, Seq), tokio_postgres::Error> {
        let row = self.client.query_one(&self.watermark, &[]).await?;
        let watermark: Seq = row.try_get(0)?;
        let wanted = watermark.saturating_sub(back);
        let Some(row) = self.client.query_opt(BEGIN_AT, &[&wanted]).await? else {
            return Ok((retained, watermark));
        };
        let (seq, at) = (row.try_get(0)?, row.try_get(1)?);
        Ok((Position::new(seq, at).max(retained), watermark))
    }

    /// Looks for what follows `after`, `disorder_s` seconds back in time.
    ///
    /// # Errors
    /// If the database does not answer in time.
    pub async fn look(&self, after: Position, disorder_s: i64) -> Result<Look, Unavailable> {
        tokio::time::timeout(DATABASE_SILENCE_MAX, self.read(after, disorder_s))
            .await
            .map_err(|_| Unavailable::Silent)?
            .map_err(Unavailable::from)
    }

    async fn read(&self, after: Position, disorder_s: i64) -> Result<Look, tokio_postgres::Error> {
        let since = Position {
            at_ms: after.at_ms.saturating_sub(disorder_s.saturating_mul(1000)),
            ..after
        }
        .at();
        let asked = self.appetite.rows();
        let limit = i64::try_from(asked).unwrap_or(i64::MAX);
        // Both are sent at once and run one after the other, each with a snapshot of its own.
        let params: [&(dyn ToSql + Sync); 3] = [&after.seq, &since, &limit];
        let (row, read) = tokio::try_join!(
            self.client.query_one(&self.watermark, &[]),
            rows::read(&self.client, &self.new_events, &params, TAIL_PAGE_BYTES_MAX),
        )?;
        if read.was_cut {
            self.appetite.cut_at(read.rows.len());
        } else if read.rows.len() >= asked && read.bytes < TAIL_PAGE_BYTES_MAX / 2 {
            self.appetite.had_room(asked);
        }
        Ok(Look {
            safe: row.try_get(0)?,
            newest: row.try_get(1)?,
            holder: row.try_get(2)?,
            is_full: read.was_cut || read.rows.len() >= asked,
            rows: read.rows,
        })
    }
}
