//! When it opens, who passes, and who hears of it.

use super::*;

const RECOVERY: Duration = Duration::from_secs(30);

fn breaker(failures: u32, probes: u32) -> Breaker {
    let settings = BreakerSettings {
        failures,
        recovery: RECOVERY,
        probes,
    };
    Breaker::new(settings, Shortages::default(), Metrics::new())
}

fn fail(breaker: &Breaker, times: u32, now: Instant) {
    for _ in 0..times {
        breaker.pass(now).unwrap().end(false, now);
    }
}

#[test]
fn it_opens_after_failures_in_a_row_and_closes_after_a_probe() {
    let (breaker, now) = (breaker(5, 1), Instant::now());
    fail(&breaker, 4, now);
    breaker.pass(now).unwrap().end(true, now);
    fail(&breaker, 4, now);
    assert_eq!(breaker.state(), BreakerState::Closed, "not in a row");
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(), BreakerState::Open);
    let later = now + Duration::from_secs(10);
    let tripped = breaker.pass(later).unwrap_err();
    assert_eq!(tripped.retry_after, Duration::from_secs(20));
    assert_eq!(breaker.open_for(later), Some(tripped));
    let later = now + RECOVERY;
    let probe = breaker.pass(later).unwrap();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.pass(later).is_err(), "one probe at a time");
    probe.end(true, later);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_again_and_one_that_is_given_up_frees_its_place() {
    let (breaker, now) = (breaker(1, 2), Instant::now());
    fail(&breaker, 1, now);
    let later = now + RECOVERY;
    let (one, other) = (breaker.pass(later).unwrap(), breaker.pass(later).unwrap());
    assert!(breaker.pass(later).is_err());
    drop(one);
    let third = breaker.pass(later).unwrap();
    third.end(false, later);
    let tripped = breaker.open_for(later).unwrap();
    assert_eq!(tripped.retry_after, RECOVERY);
    other.end(true, later);
    assert_eq!(
        breaker.state(),
        BreakerState::HalfOpen,
        "it was there after all: worth a try"
    );
}

#[test]
fn who_hears_of_the_database_and_who_resets_it_end_the_wait() {
    let (breaker, now) = (breaker(1, 1), Instant::now());
    let late = breaker.pass(now).unwrap();
    fail(&breaker, 1, now);
    late.end(false, now);
    breaker.heard();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.pass(now).unwrap().end(false, now);
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker.reset();
    assert_eq!(breaker.state(), BreakerState::Closed);
    breaker.heard();
    assert_eq!(breaker.state(), BreakerState::Closed, "nothing to end");
}

#[tokio::test]
async fn whoever_waits_learns_of_every_change() {
    let (breaker, now) = (breaker(1, 1), Instant::now());
    let mut states = breaker.states();
    assert_eq!(*states.borrow_and_update(), BreakerState::Closed);
    fail(&breaker, 1, now);
    states.changed().await.unwrap();
    assert_eq!(*states.borrow_and_update(), BreakerState::Open);
    breaker.heard();
    states.changed().await.unwrap();
    assert_eq!(*states.borrow_and_update(), BreakerState::HalfOpen);
}
#[tokio::test(start_paused = true)]
async fn whoever_waits_goes_on_when_it_may() {
    let (breaker, now) = (breaker(1, 1), Instant::now());
    breaker.ready().await;
    fail(&breaker, 1, now);
    let waiting = breaker.clone();
    let mut waits = std::pin::pin!(waiting.ready());
    assert!(futures_util::poll!(&mut waits).is_pending());
    breaker.heard();
    waits.await;
    let probe = breaker.pass(now).unwrap();
    let mut waits = std::pin::pin!(waiting.ready());
    assert!(
        futures_util::poll!(&mut waits).is_pending(),
        "one at a time"
    );
    drop(probe);
    waits.await;
    // Nobody who was there before it opened can speak for the database.
    breaker.missed();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
}
