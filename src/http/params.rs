//! The query of a read: which events, from where, how many, how long to wait.
//!
//! # Invariants
//! - A parameter that is not known is refused: a misspelt filter must not read everything.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::errors;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::event::limits::{PAGE_EVENTS, PAGE_EVENTS_MAX, WAIT_MAX};
use crate::event::{Cursor, Filter, Label, TopicPattern};
use crate::feed::Start;
use crate::log::Identity;

/// What a read asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadParams {
    topics: Option<String>,
    subjects: Option<String>,
    after: Option<String>,
    since: Option<String>,
    limit: Option<String>,
    wait: Option<String>,
    at_least: Option<String>,
    /// A credential; WebSocket and SSE only.
    pub token: Option<String>,
}

impl ReadParams {
    /// Reads a query string.
    ///
    /// # Errors
    /// If a parameter is not known or stands twice.
    pub fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let field = match name.as_ref() {
                "topics" => &mut params.topics,
                "subjects" => &mut params.subjects,
                "after" => &mut params.after,
                "since" => &mut params.since,
                "limit" => &mut params.limit,
                "wait" => &mut params.wait,
                "at_least" => &mut params.at_least,
                "token" => &mut params.token,
                other => return Err(Problem::parameter(other, "is not a parameter here")),
            };
            if field.replace(value.into_owned()).is_some() {
                return Err(Problem::parameter(
                    &name,
                    "stands twice; several values are separated by commas",
                ));
            }
        }
        Ok(params)
    }

    /// The filter: what is asked for, or all that the caller may read; refused where it is more than that.
    ///
    /// # Errors
    /// 400 or 403.
    pub fn filter(&self, principal: &Principal) -> Result<Filter, Problem> {
        filter(
            list(self.topics.as_deref()),
            list(self.subjects.as_deref()),
            principal,
        )
    }

    /// Where to begin; `resume`, from `Last-Event-ID`, wins over `after`.
    ///
    /// # Errors
    /// 400 or 409.
    pub fn start(
        &self,
        resume: Option<&str>,
        default: Start,
        identity: &Identity,
    ) -> Result<Start, Problem> {
        if let Some(cursor) = resume {
            return start(cursor, identity);
        }
        match (&self.after, &self.since) {
            (Some(_), Some(_)) => Err(Problem::parameter(
                "since",
                "goes without after: one of them says where to begin",
            )),
            (Some(after), None) => start(after, identity),
            (None, Some(since)) => DateTime::parse_from_rfc3339(since)
                .map(|time| Start::Since(time.with_timezone(&Utc)))
                .map_err(|error| {
                    Problem::parameter("since", format_args!("must be an RFC 3339 time: {error}"))
                }),
            (None, None) => Ok(default),
        }
    }

    /// How many events at most.
    ///
    /// # Errors
    /// 400.
    pub fn limit(&self) -> Result<usize, Problem> {
        match &self.limit {
            None => Ok(PAGE_EVENTS),
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_EVENTS_MAX).contains(limit))
                .ok_or_else(|| {
                    Problem::parameter("limit", format_args!("must be 1 to {PAGE_EVENTS_MAX}"))
                }),
        }
    }

    /// How long to wait for the first event.
    ///
    /// # Errors
    /// 400.
    pub fn wait(&self) -> Result<Option<Duration>, Problem> {
        match &self.wait {
            None => Ok(None),
            Some(text) => text
                .parse::<f64>()
                .ok()
                .filter(|seconds| (0.0..=WAIT_MAX.as_secs_f64()).contains(seconds))
                .map(|seconds| Some(Duration::from_secs_f64(seconds)))
                .ok_or_else(|| {
                    Problem::parameter(
                        "wait",
                        format_args!("must be 0 to {} seconds", WAIT_MAX.as_secs()),
                    )
                }),
        }
    }

    /// The place that must be readable first.
    ///
    /// # Errors
    /// 400 or 409.
    pub fn at_least(&self, identity: &Identity) -> Result<Option<Cursor>, Problem> {
        self.at_least
            .as_deref()
            .map(|text| identity.decode(text).map_err(errors::cursor))
            .transpose()
    }
}

/// A start from its text.
///
/// # Errors
/// 400 or 409.
pub fn start(text: &str, identity: &Identity) -> Result<Start, Problem> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        cursor => identity
            .decode(cursor)
            .map(Start::After)
            .map_err(errors::cursor),
    }
}

/// A filter from patterns and subjects; none of either means all that the caller may read.
///
/// # Errors
/// 400 or 403.
pub fn filter<'a>(
    topics: impl Iterator<Item = &'a str>,
    subjects: impl Iterator<Item = &'a str>,
    principal: &Principal,
) -> Result<Filter, Problem> {
    let mut patterns = Vec::new();
    for topic in topics {
        patterns.push(
            TopicPattern::parse(topic).map_err(|error| {
                Problem::parameter("topics", format_args!("{topic:?}: {error}"))
            })?,
        );
    }
    if patterns.is_empty() {
        patterns = principal.readable();
        if patterns.is_empty() {
            return Err(Problem::new(
                Kind::ForbiddenTopic,
                "this credential may read no topics",
            ));
        }
    }
    let mut wanted = Vec::new();
    for subject in subjects {
        wanted.push(Label::parse(subject).map_err(|error| {
            Problem::parameter("subjects", format_args!("{subject:?} {error}"))
        })?);
    }
    let filter = Filter::new(patterns, wanted)
        .map_err(|error| Problem::new(Kind::InvalidParameter, error.to_string()))?;
    principal.may_read(&filter).map_err(|pattern| {
        Problem::new(
            Kind::ForbiddenTopic,
            format!("this credential may not read {pattern}"),
        )
    })?;
    Ok(filter)
}

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.into_iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_parameter_is_refused() {
        assert!(ReadParams::parse(Some("topic=a")).is_err());
        assert!(ReadParams::parse(Some("topics=a&topics=b")).is_err());
        let params = ReadParams::parse(Some("topics=a.*,%20b&limit=5&wait=0.5")).unwrap();
        assert_eq!(params.limit().unwrap(), 5);
        assert_eq!(params.wait().unwrap(), Some(Duration::from_millis(500)));
        let filter = params.filter(&Principal::development()).unwrap();
        assert_eq!(
            filter
                .topics()
                .iter()
                .map(TopicPattern::as_str)
                .collect::<Vec<_>>(),
            ["a.*", "b"]
        );
    }

    #[test]
    fn what_may_not_be_read_is_refused() {
        let narrow = Principal {
            read: vec![TopicPattern::parse("a.*").unwrap()],
            ..Principal::development()
        };
        let of = |query| ReadParams::parse(Some(query)).unwrap().filter(&narrow);
        assert!(of("topics=a.b").is_ok());
        assert_eq!(of("topics=*").unwrap_err().kind, Kind::ForbiddenTopic);
        assert_eq!(
            of("").unwrap().topics().first().map(TopicPattern::as_str),
            Some("a.*")
        );
    }
}
