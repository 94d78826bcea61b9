//! The trace an event belongs to: what its W3C traceparent says.
//!
//! # Invariants
//! - Valid once parsed: no id is all zero.

use super::new_event::is_traceparent;

/// A span of a trace, and whether its trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace's id.
    pub trace: u128,
    /// The span's.
    pub span: u64,
    /// Whether whoever began it records it.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if !is_traceparent(text) {
            return None;
        }
        let mut parts = text.split('-').skip(1);
        let trace = u128::from_str_radix(parts.next()?, 16).ok()?;
        let span = u64::from_str_radix(parts.next()?, 16).ok()?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_whole_or_not_at_all() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parsed = TraceParent::parse(text).unwrap();
        assert_eq!(parsed.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parsed.span, 0xb7ad_6b71_6920_3331);
        assert!(parsed.is_sampled);
        let with_flags = |flags: &str| TraceParent::parse(&format!("{}{flags}", &text[..53]));
        assert!(!with_flags("02").unwrap().is_sampled);
        assert!(with_flags("03").unwrap().is_sampled);
        for bad in ["", "00", &text[..54], &text.to_uppercase()] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
