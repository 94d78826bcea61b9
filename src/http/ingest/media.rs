//! Which form a request's body has.
//!
//! # Invariants
//! - A body is never guessed: what no header declares is refused, but for CloudEvents in binary mode, whose headers
//!   declare the event and whose body is its data.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use crate::http::problem::{Kind, Problem};

/// The forms in which events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// An event or an array of events.
    Json,
    /// An event a line.
    Ndjson,
    /// An event or an array of events.
    Msgpack,
    /// One CloudEvent as a JSON object.
    CloudEventsStructured,
    /// An array of CloudEvents.
    CloudEventsBatch,
    /// One CloudEvent whose attributes are headers and whose data is the body.
    CloudEventsBinary,
}

/// What a refusal and the documentation name; the other spellings of NDJSON and MessagePack are taken as well.
pub const ACCEPTED: &str = "application/json, application/x-ndjson, application/msgpack, \
     application/cloudevents+json, application/cloudevents-batch+json";

/// Reads the headers that declare the body.
///
/// # Errors
/// 415 if they declare none, one that is not taken here, or a charset other than UTF-8.
pub fn media_type(headers: &HeaderMap) -> Result<Media, Problem> {
    let declared = content_type(headers)?;
    let essence = declared.map(essence).unwrap_or_default();
    let media = match essence.as_str() {
        "application/cloudevents+json" => Some(Media::CloudEventsStructured),
        "application/cloudevents-batch+json" => Some(Media::CloudEventsBatch),
        other if other.starts_with("application/cloudevents") => None,
        _ if is_cloudevent(headers) => Some(Media::CloudEventsBinary),
        "application/json" => Some(Media::Json),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonl"
        | "application/jsonlines" => Some(Media::Ndjson),
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
            Some(Media::Msgpack)
        }
        _ => None,
    };
    let media = media.ok_or_else(|| not_taken(declared, &essence))?;
    // Bytes may be in any charset: it stays part of their content type.
    let is_text = media != Media::Msgpack
        && (media != Media::CloudEventsBinary || declared.is_some_and(is_json));
    match declared.and_then(charset).filter(|_| is_text) {
        Some(charset) if charset != "utf-8" && charset != "utf8" => Err(refuse(&format!(
            "the charset is {charset:?}; JSON is UTF-8"
        ))),
        _ => Ok(media),
    }
}

/// The value of Content-Type, without the spaces around it; none if it is missing or empty.
///
/// # Errors
/// 415 if it stands twice or is not text.
pub(super) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != first) {
        return Err(refuse("Content-Type stands more than once"));
    }
    let text = std::str::from_utf8(first.as_bytes())
        .map_err(|_| refuse("Content-Type is not text"))?
        .trim();
    Ok((!text.is_empty()).then_some(text))
}

/// Whether a media type declares JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    let subtype = essence.split_once('/').map(|(_, subtype)| subtype);
    subtype.is_some_and(|s| s == "json" || s.ends_with("+json"))
}

fn is_cloudevent(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion") || headers.contains_key("ce-id")
}

fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

fn charset(content_type: &str) -> Option<String> {
    let mut parameters = content_type.split(';').skip(1);
    parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"').to_ascii_lowercase();
        name.trim().eq_ignore_ascii_case("charset").then_some(value)
    })
}

fn not_taken(declared: Option<&str>, essence: &str) -> Problem {
    let found = match (declared, essence) {
        (None, _) => "Content-Type is missing".to_owned(),
        (_, "application/x-www-form-urlencoded") => {
            "Content-Type is application/x-www-form-urlencoded, which curl -d sends unless told \
             otherwise (curl --json sets it)"
                .to_owned()
        }
        (Some(text), _) => {
            format!(
                "Content-Type is {:?}",
                text.chars().take(100).collect::<String>()
            )
        }
    };
    refuse(&found)
}

fn refuse(found: &str) -> Problem {
    let detail = format!(
        "{found}; taken are {ACCEPTED}, or CloudEvents in binary mode (ce-specversion, ce-id, …)"
    );
    Problem::new(Kind::UnsupportedMediaType, detail).with_member("accept", ACCEPTED)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Result<Media, Kind> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        media_type(&map).map_err(|problem| problem.kind)
    }

    const REFUSED: Result<Media, Kind> = Err(Kind::UnsupportedMediaType);

    #[test]
    fn spellings_of_what_is_taken() {
        for (text, media) in [
            ("application/json", Media::Json),
            (
                " Application/JSON ;  Charset = \"UTF-8\" ; x=y;",
                Media::Json,
            ),
            ("application/json;charset=utf8", Media::Json),
            ("application/x-ndjson", Media::Ndjson),
            ("application/ndjson", Media::Ndjson),
            ("application/jsonl; charset=utf-8", Media::Ndjson),
            ("application/msgpack", Media::Msgpack),
            ("application/x-msgpack", Media::Msgpack),
            ("application/vnd.msgpack", Media::Msgpack),
            (
                "application/cloudevents+json; charset=utf-8",
                Media::CloudEventsStructured,
            ),
            (
                "application/cloudevents-batch+json",
                Media::CloudEventsBatch,
            ),
        ] {
            assert_eq!(of(&[("content-type", text)]), Ok(media), "{text}");
        }
    }

    #[test]
    fn what_is_not_taken() {
        assert_eq!(of(&[]), REFUSED);
        for text in [
            "",
            "text/plain",
            "json",
            "application/json; charset=latin1",
            "application/cloudevents+avro",
            "application/x-www-form-urlencoded",
            "application/json, application/json",
        ] {
            assert_eq!(of(&[("content-type", text)]), REFUSED, "{text}");
        }
        let twice = [
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
        ];
        assert_eq!(of(&twice), REFUSED);
    }

    #[test]
    fn attributes_in_headers_make_any_body_a_cloudevent() {
        let id = ("ce-id", "1");
        assert_eq!(of(&[id]), Ok(Media::CloudEventsBinary));
        assert_eq!(
            of(&[("ce-specversion", "1.0")]),
            Ok(Media::CloudEventsBinary)
        );
        for text in [
            "application/json",
            "text/plain; charset=latin1",
            "image/png",
            "odd",
        ] {
            assert_eq!(
                of(&[id, ("content-type", text)]),
                Ok(Media::CloudEventsBinary)
            );
        }
        let structured = ("content-type", "application/cloudevents+json");
        assert_eq!(of(&[id, structured]), Ok(Media::CloudEventsStructured));
        assert_eq!(
            of(&[id, ("content-type", "application/cloudevents+xml")]),
            REFUSED
        );
        assert_eq!(
            of(&[id, ("content-type", "text/json; charset=latin1")]),
            REFUSED
        );
    }

    proptest! {
        #[test]
        fn any_value_is_taken_or_refused(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut map = HeaderMap::new();
                map.insert(CONTENT_TYPE, value);
                let _ = media_type(&map);
            }
        }
    }
}
