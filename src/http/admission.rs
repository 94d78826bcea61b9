//! What a caller's limits mean on the wire: 429 and when to come back, and the `RateLimit` headers of limited routes.
//!
//! # Invariants
//! - Every transport asks here, before the work: bytes before a body is read where its length is known, events before they
//!   are stored.
//! - When to come back is what the bucket says, and a little later, so that clients do not come back in step.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use rand::RngExt as _;

use super::app::App;
use super::errors;
use super::problem::{Kind, Problem};
use crate::access::limits::{Account, Exceeded, NoPlace, Place, Quantity, Reading, Scope};
use crate::access::{Limits, Principal};
use crate::event::Tenant;
use crate::event::limits::UPLOAD_WAIT_MAX;
use crate::feed::Start;
use crate::feed::pace::{self, Pace};
use crate::tasks::pause;

/// What is left, as the draft of the IETF's working group on HTTP APIs names it.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What there is.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// When to come back for a place that somebody must leave first.
const PLACE_RETRY: Duration = Duration::from_secs(2);

/// What the buckets said while a request was served.
#[derive(Debug, Clone, Default)]
struct Meter(Arc<Mutex<Metered>>);

#[derive(Debug, Default)]
struct Metered {
    /// What the route is limited by; nothing: it is not.
    quantities: &'static [Quantity],
    readings: Vec<Reading>,
}

/// Who asks, and what it has asked for.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Whose events.
    pub tenant: Tenant,
    account: Account,
    meter: Option<Meter>,
}

impl Admission {
    /// Of the caller of a request that reads.
    #[must_use]
    pub fn of_reader(app: &App, principal: &Principal, request: &Extensions) -> Self {
        Self::of(app, principal, request, &[Quantity::Reads])
    }

    /// Of the caller of a request that appends.
    #[must_use]
    pub fn of_writer(app: &App, principal: &Principal, request: &Extensions) -> Self {
        let quantities = &[Quantity::Events, Quantity::Bytes];
        Self::of(app, principal, request, quantities)
    }

    /// Of the caller of a request that administers.
    #[must_use]
    pub fn of_administrator(app: &App, principal: &Principal, request: &Extensions) -> Self {
        Self::of(app, principal, request, &[Quantity::Administration])
    }

    fn of(
        app: &App,
        principal: &Principal,
        request: &Extensions,
        quantities: &'static [Quantity],
    ) -> Self {
        let meter = request.get::<Meter>().cloned();
        if let Some(Meter(metered)) = &meter {
            let mut metered = metered.lock().unwrap_or_else(PoisonError::into_inner);
            metered.quantities = quantities;
        }
        Self {
            meter,
            ..Self::for_socket(app, principal)
        }
    }

    /// Of who holds a socket, whose answers have no headers.
    #[must_use]
    pub fn for_socket(app: &App, principal: &Principal) -> Self {
        Self {
            tenant: principal.tenant.clone(),
            account: app.limits.account(principal),
            meter: None,
        }
    }

    /// Whether both count against the same credential.
    #[must_use]
    pub fn is_of_same_account(&self, other: &Self) -> bool {
        self.account.is_same(&other.account)
    }

    /// Takes tokens.
    ///
    /// # Errors
    /// 429 if they are not there, 413 if they never will be.
    pub fn take(&self, quantity: Quantity, amount: usize) -> Result<(), Problem> {
        self.ask(quantity, amount).map_err(|why| exceeded(&why))
    }

    fn ask(&self, quantity: Quantity, amount: usize) -> Result<(), Exceeded> {
        self.account.take(quantity, amount, |reading| {
            if let Some(Meter(metered)) = &self.meter {
                let mut metered = metered.lock().unwrap_or_else(PoisonError::into_inner);
                // The last word of each bucket counts.
                metered
                    .readings
                    .retain(|old| (old.scope, old.quantity) != (reading.scope, reading.quantity));
                metered.readings.push(reading);
            }
        })
    }

    /// Takes tokens as they come, a few at a time, so that whoever needs few gets them meanwhile.
    ///
    /// # Errors
    /// 429 if it takes too long.
    pub async fn wait_for(&self, quantity: Quantity, amount: usize) -> Result<(), Problem> {
        let piece = self.account.limits().in_a_moment(quantity, amount).max(1);
        let waiting = async {
            let mut left = if self.account.limits().has_rate(&[quantity]) {
                amount
            } else {
                0
            };
            while left > 0 {
                match self.ask(quantity, left.min(piece)) {
                    Ok(()) => left = left.saturating_sub(piece),
                    Err(Exceeded::Later { wait, .. }) => pause(later(wait)).await,
                    Err(never) => return Err(exceeded(&never)),
                }
            }
            Ok(())
        };
        let waited = tokio::time::timeout(UPLOAD_WAIT_MAX, waiting).await;
        waited.unwrap_or_else(|_| {
            let detail = "the upload has waited too long for its rate: others of the same credential or tenant use it up";
            Err(Problem::new(Kind::RateLimited, detail).with_retry_after(later(PLACE_RETRY)))
        })
    }

    /// Counts where a reader begins: a time is looked up in history.
    ///
    /// # Errors
    /// 429.
    pub fn begin(&self, start: Start) -> Result<(), Problem> {
        match start {
            Start::Since(_) => self.take(Quantity::Reads, 1),
            Start::After(_) | Start::Earliest | Start::Latest => Ok(()),
        }
    }

    /// The pace of its readers.
    #[must_use]
    pub fn pace(&self) -> Pace {
        if self.account.limits().has_rate(&[Quantity::Reads]) {
            Pace::new(Arc::new(self.clone()))
        } else {
            Pace::default()
        }
    }

    /// A place for a connection.
    ///
    /// # Errors
    /// 503 if all are taken, 429 if the caller has as many as it may.
    pub fn connect(&self) -> Result<Place, Problem> {
        let place = self.account.connect();
        place.map_err(|why| no_place(why, "connections"))
    }

    /// A place for a subscription.
    ///
    /// # Errors
    /// As [`Admission::connect`].
    pub fn subscribe(&self) -> Result<Place, Problem> {
        let place = self.account.subscribe();
        place.map_err(|why| no_place(why, "subscriptions"))
    }

    /// Counts a place of `of`, which another credential of the tenant has taken, as this caller's.
    ///
    /// # Errors
    /// 429 if the caller has as many as it may.
    pub fn take_over(&self, place: &mut Place, of: &str) -> Result<(), Problem> {
        let taken_over = self.account.take_over(place);
        taken_over.map_err(|why| no_place(why, of))
    }
}

impl pace::Admission for Admission {
    fn admit(&self) -> Result<(), Duration> {
        match self.ask(Quantity::Reads, 1) {
            Ok(()) => Ok(()),
            Err(Exceeded::Later { wait, .. }) => Err(wait),
            // A bucket holds one at least.
            Err(Exceeded::Never { .. }) => Err(PLACE_RETRY),
        }
    }
}

/// A little later than that.
fn later(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(1.0..1.25))
        .max(Duration::from_millis(1))
}

fn exceeded(why: &Exceeded) -> Problem {
    match *why {
        Exceeded::Later {
            scope,
            quantity,
            wait,
        } => {
            let (whose, what) = (whose(scope), what(quantity));
            let detail = format!("this {whose} has used up its rate of {what}");
            Problem::new(Kind::RateLimited, detail).with_retry_after(later(wait))
        }
        Exceeded::Never {
            scope,
            quantity,
            burst,
        } => {
            let (whose, what) = (whose(scope), what(quantity));
            let detail = format!(
                "a {whose} may send at most {burst} {what} at once here: send less at a time, or application/x-ndjson"
            );
            Problem::new(Kind::TooLarge, detail)
        }
    }
}

/// A reader may go on after this.
#[must_use]
pub fn too_often(wait: Duration) -> Problem {
    let detail = "history is read too often with this credential, or by its tenant";
    Problem::new(Kind::RateLimited, detail).with_retry_after(later(wait))
}

fn no_place(why: NoPlace, of: &str) -> Problem {
    let whose = match why {
        NoPlace::Full => return errors::overloaded("too many readers are connected"),
        NoPlace::Tenant => "tenant",
        NoPlace::Credential => "credential",
    };
    let detail = format!("this {whose} has as many {of} as it may have at the moment");
    Problem::new(Kind::RateLimited, detail).with_retry_after(later(PLACE_RETRY))
}

const fn whose(scope: Scope) -> &'static str {
    match scope {
        Scope::Credential => "credential",
        Scope::Tenant => "tenant",
    }
}

const fn what(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Events => "events",
        Quantity::Bytes => "bytes",
        Quantity::Reads => "reads",
        Quantity::Administration => "administration",
    }
}

/// Adds the headers to the answers of limited routes.
pub async fn report(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let meter = Meter::default();
    request.extensions_mut().insert(meter.clone());
    let mut response = next.run(request).await;
    let metered = meter.0.lock().unwrap_or_else(PoisonError::into_inner);
    if app.limits.has_rate(metered.quantities) {
        let headers = [
            (RATE_LIMIT_POLICY, policies(&app.limits, metered.quantities)),
            (RATE_LIMIT, levels(&metered.readings)),
        ];
        for (name, text) in headers {
            if let Ok(value) = HeaderValue::from_str(&text)
                && !text.is_empty()
            {
                response.headers_mut().insert(name, value);
            }
        }
    }
    drop(metered);
    response
}

/// `"tenant-events";q=1000;w=10`, a member for each limit.
fn policies(limits: &Limits, quantities: &[Quantity]) -> String {
    let mut text = String::new();
    for scope in [Scope::Credential, Scope::Tenant] {
        for quantity in quantities {
            let Some(buckets) = limits.buckets(scope, *quantity) else {
                continue;
            };
            let (whose, what) = (whose(scope), what(*quantity));
            let (burst, window) = (buckets.burst(), seconds(buckets.full_in(0)).max(1));
            let unit = match quantity {
                Quantity::Bytes => ";qu=\"content-bytes\"",
                Quantity::Events | Quantity::Reads | Quantity::Administration => "",
            };
            separate(&mut text);
            let _ = write!(text, "\"{whose}-{what}\";q={burst}{unit};w={window}");
        }
    }
    text
}

/// `"tenant-events";r=50;t=1`: what is left, and when it will be all again.
fn levels(readings: &[Reading]) -> String {
    let mut text = String::new();
    for reading in readings {
        let (whose, what) = (whose(reading.scope), what(reading.quantity));
        let (left, full_in) = (reading.left, seconds(reading.full_in));
        separate(&mut text);
        let _ = write!(text, "\"{whose}-{what}\";r={left};t={full_in}");
    }
    text
}

fn separate(text: &mut String) {
    if !text.is_empty() {
        text.push_str(", ");
    }
}

/// Whole seconds, the begun one included.
fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}
