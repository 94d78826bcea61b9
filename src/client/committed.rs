//! What a server has counted of what is committed between two places (`GET /v1/audit`), all parts added up.
//!
//! # Invariants
//! - It goes on until the end that the first answer named: what comes later makes no difference.

use serde::Deserialize;

use super::{Client, Error, Selection};

/// What is to be counted.
#[derive(Debug, Clone)]
pub struct Span<'a> {
    /// Which events.
    pub selection: &'a Selection,
    /// A cursor or `earliest`; where a consumer stands, if nothing is said.
    pub after: Option<&'a str>,
    /// A cursor or `latest`.
    pub until: &'a str,
    /// A consumer with which it is to be compared.
    pub consumer: Option<&'a str>,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where it begins.
    pub after: String,
    /// Where it ends.
    pub until: String,
    /// How many events.
    pub count: u64,
    /// Of their ids; see `IdsDigest`.
    pub digest: String,
    /// The consumer, if one was named.
    pub consumer: Option<Passed>,
}

/// How far a consumer has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Passed {
    /// Its name.
    pub name: String,
    /// Its place.
    pub cursor: String,
    /// It takes no step.
    pub is_paused: bool,
    /// What lies between its place and this it never gets: it is no longer kept.
    pub lost_before: Option<String>,
    /// The first of those that it has not passed.
    pub missing: Vec<String>,
}

/// One answer.
#[derive(Debug, Deserialize)]
struct Part {
    after: String,
    through: String,
    until: String,
    has_more: bool,
    count: u64,
    digest: String,
    consumer: Option<Passed>,
}

impl Client {
    /// Counts what is committed.
    ///
    /// # Errors
    /// If the server refuses, cannot be reached, or does not answer as the contract says.
    pub async fn committed(&self, span: &Span<'_>) -> Result<Committed, Error> {
        let (topics, subjects) = (
            span.selection.topics.join(","),
            span.selection.subjects.join(","),
        );
        let (mut after, mut until) = (span.after.map(str::to_owned), span.until.to_owned());
        let (mut sum, mut whole) = (0_u128, None::<Committed>);
        loop {
            let mut query = vec![("until", until.as_str())];
            let given = [
                ("after", after.as_deref()),
                ("topics", Some(topics.as_str())),
                ("subjects", Some(subjects.as_str())),
                ("consumer", span.consumer),
            ];
            query.extend(given.into_iter().filter_map(|(name, text)| {
                text.filter(|text| !text.is_empty())
                    .map(|text| (name, text))
            }));
            let answer = self.get(&["v1", "audit"], &query).await?;
            let part: Part = serde_json::from_value(answer)
                .map_err(|error| Error::Contract(format!("the answer is no audit: {error}")))?;
            let digest = u128::from_str_radix(&part.digest, 16)
                .map_err(|_| Error::Contract("the audit's digest cannot be read".into()))?;
            sum = sum.wrapping_add(digest);
            let whole = whole.get_or_insert_with(|| Committed {
                after: part.after.clone(),
                until: part.until.clone(),
                count: 0,
                digest: String::new(),
                consumer: None,
            });
            whole.count = whole.count.saturating_add(part.count);
            whole.consumer = match (whole.consumer.take(), part.consumer) {
                (Some(mut so_far), Some(more)) => {
                    so_far.missing.extend(more.missing);
                    (so_far.cursor, so_far.is_paused) = (more.cursor, more.is_paused);
                    Some(so_far)
                }
                (so_far, more) => so_far.or(more),
            };
            if !part.has_more {
                whole.digest = format!("{sum:032x}");
                return Ok(whole.clone());
            }
            if Some(&part.through) == after.as_ref() {
                return Err(Error::Contract("the audit does not go on".into()));
            }
            (after, until) = (Some(part.through), part.until);
        }
    }
}
