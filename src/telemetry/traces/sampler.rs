//! Which traces are recorded, by the names of the OpenTelemetry standard.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

use crate::event::TraceParent;

/// Which traces are recorded.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Whoever began the trace has decided; the rest is for those that begin here.
    is_by_parent: bool,
    rest: Sampler,
}

/// Not the name of a sampler, or its share is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "write always_on, always_off, traceidratio or one of these behind parentbased_; the share of traceidratio is 0 to 1"
)]
pub struct NotASampler;

/// The standard's name of a sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerName {
    is_by_parent: bool,
    rest: Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    On,
    Off,
    Ratio,
}

impl FromStr for SamplerName {
    type Err = NotASampler;

    fn from_str(text: &str) -> Result<Self, NotASampler> {
        let (is_by_parent, rest) = match text.strip_prefix("parentbased_") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let rest = match rest {
            "always_on" => Rest::On,
            "always_off" => Rest::Off,
            "traceidratio" => Rest::Ratio,
            _ => return Err(NotASampler),
        };
        Ok(Self { is_by_parent, rest })
    }
}

impl fmt::Display for SamplerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_by_parent {
            "parentbased_"
        } else {
            ""
        })?;
        out.write_str(match self.rest {
            Rest::On => "always_on",
            Rest::Off => "always_off",
            Rest::Ratio => "traceidratio",
        })
    }
}

impl Sampling {
    /// The sampler of this name; `share` of the traces where it is one by share.
    ///
    /// # Errors
    /// If there is none of this name, or the share is not 0 to 1.
    pub fn new(name: &str, share: f64) -> Result<Self, NotASampler> {
        let name: SamplerName = name.parse()?;
        if !(0.0..=1.0).contains(&share) {
            return Err(NotASampler);
        }
        Ok(Self {
            is_by_parent: name.is_by_parent,
            rest: match name.rest {
                Rest::On => Sampler::AlwaysOn,
                Rest::Off => Sampler::AlwaysOff,
                Rest::Ratio => Sampler::TraceIdRatioBased(share),
            },
        })
    }

    /// Whether a trace is recorded: every span of it, on every server, alike.
    pub(super) fn samples(&self, parent: Option<&TraceParent>, trace: u128) -> bool {
        if let Some(parent) = parent.filter(|_| self.is_by_parent) {
            return parent.is_sampled;
        }
        let trace = TraceId::from_bytes(trace.to_be_bytes());
        let kind = SpanKind::Internal;
        let result = self.rest.should_sample(None, trace, "", &kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_decides_where_the_name_says_so() {
        let parent = |is_sampled| TraceParent {
            trace: u128::MAX,
            span: 1,
            is_sampled,
        };
        let decides = |name: &str, share| {
            let sampling = Sampling::new(name, share).unwrap();
            [Some(parent(true)), Some(parent(false)), None]
                .map(|parent| sampling.samples(parent.as_ref(), u128::MAX))
        };
        assert_eq!(decides("always_on", 1.0), [true, true, true]);
        assert_eq!(decides("always_off", 1.0), [false, false, false]);
        assert_eq!(decides("parentbased_always_on", 1.0), [true, false, true]);
        assert_eq!(decides("parentbased_always_off", 1.0), [true, false, false]);
        assert_eq!(decides("traceidratio", 0.5), [false, false, false]);
        assert_eq!(decides("traceidratio", 1.0), [true, true, true]);
        assert_eq!(
            decides("parentbased_traceidratio", 0.5),
            [true, false, false]
        );
        for (name, share) in [
            ("", 1.0),
            ("parentbased", 1.0),
            ("always_on", 1.5),
            ("x", 0.0),
        ] {
            assert!(Sampling::new(name, share).is_err(), "{name} {share}");
        }
    }
}
