//! What JSON text the log can hold: PostgreSQL's `jsonb` takes less than JSON allows.
//!
//! # Invariants
//! - Text that passes [`check`] is accepted by `jsonb`, and its numbers come back exactly.
//! - One pass, no recursion, no allocation: nesting of any depth costs a counter.

use super::limits::DATA_DEPTH_MAX;

/// Why valid JSON cannot be stored, or not at this size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// `\u0000` in a string.
    #[error("the string at byte {0} contains \\u0000, which the database cannot store")]
    Nul(usize),
    /// Half of a surrogate pair in a string.
    #[error("the string at byte {0} contains a lone surrogate, which is not a character")]
    LoneSurrogate(usize),
    /// Objects and arrays nested deeper than the bound.
    #[error("objects and arrays are nested deeper than {DATA_DEPTH_MAX} levels")]
    TooDeep,
    /// A number outside what the database keeps exactly.
    #[error(
        "the number at byte {0} has an exponent beyond ±{EXPONENT_MAX} or more than {DIGITS_MAX} digits"
    )]
    Number(usize),
    /// Longer, as the database would print it, than the bound.
    #[error("is {size} bytes as the database prints it; at most {max}")]
    TooLarge {
        /// Bytes it would take.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// `numeric` keeps 16,383 digits after the point and 131,072 before it; exponents are printed as zeros, so the bound
/// also keeps seven bytes from becoming a hundred thousand.
const EXPONENT_MAX: i64 = 4_096;
/// Digits of one number.
const DIGITS_MAX: usize = 8_192;

/// Checks the text of one syntactically valid JSON value.
///
/// # Errors
/// The first thing that `jsonb` could not hold, or `TooLarge` if its printed form is longer than `bytes_max`.
pub fn check(text: &str, bytes_max: usize) -> Result<(), Unstorable> {
    let bytes = text.as_bytes();
    let mut at = 0_usize;
    let mut depth = 0_usize;
    let mut printed = bytes.len();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                depth = depth.saturating_add(1);
                if depth > DATA_DEPTH_MAX {
                    return Err(Unstorable::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = check_string(bytes, at)?,
            b'-' | b'0'..=b'9' => {
                let (end, zeros) = check_number(bytes, at)?;
                printed = printed.saturating_add(zeros);
                at = end;
                continue;
            }
            _ => {}
        }
        at = at.saturating_add(1);
    }
    if printed > bytes_max {
        return Err(Unstorable::TooLarge {
            size: printed,
            max: bytes_max,
        });
    }
    Ok(())
}

/// Returns the place of the closing quote.
fn check_string(bytes: &[u8], open: usize) -> Result<usize, Unstorable> {
    let mut at = open.saturating_add(1);
    let mut high_pending = false;
    loop {
        let Some(byte) = bytes.get(at) else {
            return Ok(at);
        };
        let is_unicode_escape = *byte == b'\\' && bytes.get(at.saturating_add(1)) == Some(&b'u');
        if is_unicode_escape {
            let unit = hex(bytes, at.saturating_add(2));
            match unit {
                0 => return Err(Unstorable::Nul(open)),
                0xD800..=0xDBFF if !high_pending => high_pending = true,
                0xDC00..=0xDFFF if high_pending => high_pending = false,
                0xD800..=0xDFFF => return Err(Unstorable::LoneSurrogate(open)),
                _ if high_pending => return Err(Unstorable::LoneSurrogate(open)),
                _ => {}
            }
            at = at.saturating_add(6);
            continue;
        }
        if high_pending {
            return Err(Unstorable::LoneSurrogate(open));
        }
        match byte {
            b'"' => return Ok(at),
            b'\\' => at = at.saturating_add(2),
            _ => at = at.saturating_add(1),
        }
    }
}

fn hex(bytes: &[u8], from: usize) -> u32 {
    bytes.iter().skip(from).take(4).fold(0, |sum, b| {
        (sum << 4) | char::from(*b).to_digit(16).unwrap_or(0)
    })
}

/// Returns the place behind the number, and how many bytes longer the database prints it.
fn check_number(bytes: &[u8], from: usize) -> Result<(usize, usize), Unstorable> {
    let is_part = |b: &&u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    let token: &[u8] = bytes.get(from..).unwrap_or_default();
    let length = token.iter().take_while(is_part).count();
    let token = token.get(..length).unwrap_or_default();
    let mut parts = token.split(|b| matches!(b, b'e' | b'E'));
    let digits = parts.next().unwrap_or_default().len();
    let exponent = match parts.next() {
        None => 0,
        Some(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.parse::<i64>().ok())
            .ok_or(Unstorable::Number(from))?,
    };
    if digits > DIGITS_MAX || exponent.abs() > EXPONENT_MAX {
        return Err(Unstorable::Number(from));
    }
    let zeros = usize::try_from(exponent.unsigned_abs()).unwrap_or(usize::MAX);
    Ok((from.saturating_add(length), zeros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 256 * 1024;

    #[test]
    fn what_jsonb_cannot_hold_is_named() {
        assert_eq!(check(r#"{"a":"x\u0000"}"#, MAX), Err(Unstorable::Nul(5)));
        assert_eq!(check(r#""\\u0000""#, MAX), Ok(()));
        assert_eq!(check(r#""\ud83d\ude00""#, MAX), Ok(()));
        assert_eq!(check(r#""\ud83d""#, MAX), Err(Unstorable::LoneSurrogate(0)));
        assert_eq!(
            check(r#""\ud83dx\ude00""#, MAX),
            Err(Unstorable::LoneSurrogate(0))
        );
        assert_eq!(check(r#""\ude00""#, MAX), Err(Unstorable::LoneSurrogate(0)));
        assert_eq!(check("1e5000", MAX), Err(Unstorable::Number(0)));
        assert_eq!(
            check("[1,1e99999999999999999999]", MAX),
            Err(Unstorable::Number(3))
        );
        assert_eq!(check("-1.5e+30", MAX), Ok(()));
        assert_eq!(
            check(&"[".repeat(10_000_000), MAX),
            Err(Unstorable::TooDeep)
        );
    }

    #[test]
    fn exponents_count_as_the_zeros_they_print() {
        let text = format!("[{}1e4000]", "1e4000,".repeat(100));
        assert!(matches!(
            check(&text, MAX),
            Err(Unstorable::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "\\PC{0,200}") {
            let _ = check(&text, MAX);
        }
    }
}
