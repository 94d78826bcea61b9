//! Where a reader stands in the log: "everything up to here has been seen".
//!
//! # Invariants
//! - Reading resumes strictly after a cursor. Two cursors of one log order, as text and as bytes, as their places do.
//! - Clients treat the text form as opaque. Only this file (and `sql/functions/cursor.sql`, which a test compares with
//!   it) writes or parses it.
//! - A cursor another log issued, or an altered one, is told from ours by its tag.
//!
//! Layout, 20 bytes in base32hex (32 characters of `[0-9a-v]`): epoch, 2 bytes · seq, 8 · milliseconds since 1970 of the
//! event's `recorded_at`, 6 · tag, 4, from SHA-256 over the log's id and the rest. All big-endian.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// An event's place in the log. 0 is before the first.
pub type Seq = i64;

/// A place and the time that bounds the search for what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The place of the last event seen.
    pub seq: Seq,
    /// `recorded_at` of that event in milliseconds since 1970, or of an earlier one.
    pub at_ms: i64,
}

impl Position {
    /// Before the first event.
    pub const START: Self = Self { seq: 0, at_ms: 0 };

    /// The place of an event recorded at `at`.
    #[must_use]
    pub const fn new(seq: Seq, at: DateTime<Utc>) -> Self {
        Self {
            seq,
            at_ms: at.timestamp_millis(),
        }
    }

    /// The time as a timestamp; times no timestamp can hold become 1970, which bounds nothing.
    #[must_use]
    pub fn at(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.at_ms).unwrap_or_default()
    }
}

/// A position in one life of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The life of the log that issued it.
    pub epoch: u16,
    /// The position.
    pub position: Position,
}

/// What tells this log from others, and what its earlier lives still share with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// The log's id.
    pub log_id: [u8; 16],
    /// The life that is in force.
    pub epoch: u16,
    /// For each life, the place after which it began; ascending by epoch.
    pub epochs: Vec<(u16, Seq)>,
}

/// Why a text is not a usable cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not 32 characters of `[0-9a-v]`.
    #[error("a cursor is 32 characters of 0-9 and a-v, as an answer of this server gave it")]
    Malformed,
    /// Well formed, but this log never issued it: another log's, an altered one, or one of a history that was cut off.
    #[error("this log never issued that cursor")]
    Unknown,
}

const PLACE_BYTES: usize = 16;
const CURSOR_BYTES: usize = 20;
/// Characters of a cursor's text.
pub const CURSOR_CHARS: usize = 32;

impl LogIdentity {
    /// The cursor of `position` in the life that is in force, as text.
    #[must_use]
    pub fn encode(&self, position: Position) -> String {
        let mut bytes = [0_u8; CURSOR_BYTES];
        let (place, tag) = bytes.split_at_mut(PLACE_BYTES);
        place.copy_from_slice(&place_bytes(self.epoch, position));
        tag.copy_from_slice(&self.tag(place));
        data_encoding::BASE32HEX_NOPAD
            .encode(&bytes)
            .to_ascii_lowercase()
    }

    /// Reads a cursor's text.
    ///
    /// # Errors
    /// If it is malformed, or this log never issued it. Whether it lies ahead of the log or before its beginning is for
    /// the log to say.
    pub fn decode(&self, text: &str) -> Result<Cursor, CursorError> {
        if text.len() != CURSOR_CHARS
            || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'))
        {
            return Err(CursorError::Malformed);
        }
        let bytes = data_encoding::BASE32HEX_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| CursorError::Malformed)?;
        let (place, tag) = bytes
            .split_at_checked(PLACE_BYTES)
            .ok_or(CursorError::Malformed)?;
        if tag != self.tag(place) {
            return Err(CursorError::Unknown);
        }
        let cursor = parse_place(place).ok_or(CursorError::Unknown)?;
        // A life that came after the cursor's own shares its history only up to where it began.
        let is_ours = self.epochs.iter().any(|(epoch, _)| *epoch == cursor.epoch);
        let was_cut = self
            .epochs
            .iter()
            .any(|(epoch, after)| *epoch > cursor.epoch && cursor.position.seq > *after);
        if is_ours && !was_cut {
            Ok(cursor)
        } else {
            Err(CursorError::Unknown)
        }
    }

    fn tag(&self, place: &[u8]) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(self.log_id)
            .chain_update(place)
            .finalize();
        let mut tag = [0_u8; 4];
        for (to, from) in tag.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        tag
    }
}

fn place_bytes(epoch: u16, position: Position) -> [u8; PLACE_BYTES] {
    let at = position.at_ms.to_be_bytes();
    let parts = epoch
        .to_be_bytes()
        .into_iter()
        .chain(position.seq.to_be_bytes())
        .chain(at.into_iter().skip(2));
    let mut bytes = [0_u8; PLACE_BYTES];
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = from;
    }
    bytes
}

fn parse_place(bytes: &[u8]) -> Option<Cursor> {
    let (epoch, rest) = bytes.split_first_chunk::<2>()?;
    let (seq, at) = rest.split_first_chunk::<8>()?;
    let (at, _) = at.split_first_chunk::<6>()?;
    let at_ms = at
        .iter()
        .fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
    let seq = i64::from_be_bytes(*seq);
    (seq >= 0).then_some(Cursor {
        epoch: u16::from_be_bytes(*epoch),
        position: Position { seq, at_ms },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> LogIdentity {
        LogIdentity {
            log_id: [7; 16],
            epoch: 2,
            epochs: vec![(1, 0), (2, 50)],
        }
    }

    proptest! {
        #[test]
        fn text_orders_as_places_do(a in 0..i64::MAX, b in 0..i64::MAX, at in 0_i64..(1 << 47), bt in 0_i64..(1 << 47)) {
            let id = identity();
            let (a, b) = (Position { seq: a, at_ms: at }, Position { seq: b, at_ms: bt });
            let (x, y) = (id.encode(a), id.encode(b));
            prop_assert_eq!(a.seq.cmp(&b.seq), x[..16].cmp(&y[..16]).then(a.seq.cmp(&b.seq)));
            prop_assert_eq!(id.decode(&x).map(|c| c.position), Ok(a));
        }

        #[test]
        fn any_text_is_refused_or_ours(text in "\\PC{0,40}|[0-9a-v]{32}") {
            prop_assert!(identity().decode(&text).is_err());
        }

        #[test]
        fn one_changed_character_is_noticed(seq in 0..i64::MAX, at in 0_usize..32, to in "[0-9a-v]") {
            let id = identity();
            let mut text = id.encode(Position { seq, at_ms: 1_700_000_000_000 });
            let before = text.clone();
            text.replace_range(at..=at, &to);
            prop_assert!(text == before || id.decode(&text) == Err(CursorError::Unknown));
        }
    }

    #[test]
    fn another_log_is_noticed() {
        let other = LogIdentity {
            log_id: [8; 16],
            ..identity()
        };
        let text = other.encode(Position { seq: 5, at_ms: 0 });
        assert_eq!(identity().decode(&text), Err(CursorError::Unknown));
    }

    #[test]
    fn an_earlier_life_is_shared_up_to_its_end() {
        let first = LogIdentity {
            epoch: 1,
            epochs: vec![(1, 0)],
            ..identity()
        };
        assert!(
            identity()
                .decode(&first.encode(Position { seq: 50, at_ms: 0 }))
                .is_ok()
        );
        let beyond = first.encode(Position { seq: 51, at_ms: 0 });
        assert_eq!(identity().decode(&beyond), Err(CursorError::Unknown));
    }
}
