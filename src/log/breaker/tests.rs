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
        breaker.pass(now).unwrap().end(Finding::Away, now);
    }
}

#[test]
fn it_opens_after_failures_in_a_row_and_closes_after_a_probe() {
    let (breaker, now) = (breaker(5, 1), Instant::now());
    fail(&breaker, 4, now);
    breaker.pass(now).unwrap().end(Finding::There, now);
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
    probe.end(Finding::There, later);
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
    third.end(Finding::Away, later);
    let tripped = breaker.open_for(later).unwrap();
    assert_eq!(tripped.retry_after, RECOVERY);
    other.end(Finding::There, later);
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
    late.end(Finding::Away, now);
    breaker.missed();
    breaker.heard();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.pass(now).unwrap().end(Finding::Away, now);
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
    breaker.missed();
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
    breaker.missed();
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

fn fails(breaker: &Breaker, times: u32, now: Instant) {
    for _ in 0..times {
        breaker.pass(now).unwrap().end(Finding::Failing, now);
    }
}

/// The tail reads a database that takes nothing: that it does, again and again, is no news.
#[test]
fn a_database_that_can_be_read_is_not_tried_before_the_recovery_time() {
    let (breaker, now) = (breaker(3, 1), Instant::now());
    for _ in 0..3 {
        // Between the failures of batches as well as after them.
        breaker.heard();
        fails(&breaker, 1, now);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.trouble(), Some(Trouble::WritesFail));
    for _ in 0..10 {
        breaker.heard();
        assert_eq!(breaker.state(), BreakerState::Open);
    }
    let later = now + RECOVERY;
    fails(&breaker, 1, later);
    breaker.heard();
    assert_eq!(breaker.open_for(later).unwrap().retry_after, RECOVERY);
    assert_eq!(breaker.trouble(), Some(Trouble::WritesFail));
    let last = later + RECOVERY;
    breaker.pass(last).unwrap().end(Finding::There, last);
    assert_eq!(breaker.trouble(), None);
}

#[test]
fn what_is_the_matter_changes_while_it_is_open() {
    let (breaker, now) = (breaker(3, 1), Instant::now());
    let troubles = breaker.troubles();
    let told = || *troubles.borrow();
    fails(&breaker, 3, now);
    assert_eq!(told(), Some(Trouble::WritesFail));
    breaker.missed();
    assert_eq!(told(), Some(Trouble::Away));
    let tripped = breaker.open_for(now).unwrap();
    assert_eq!(tripped.trouble, Trouble::Away);
    // It is there again: what becomes of what is written is not known.
    breaker.heard();
    assert_eq!((breaker.state(), told()), (BreakerState::HalfOpen, None));
    fails(&breaker, 1, now);
    assert_eq!(told(), Some(Trouble::WritesFail));
    // A recovery time that is over is no news of the database.
    breaker.missed();
    let later = now + RECOVERY;
    let probe = breaker.pass(later).unwrap();
    assert_eq!(
        (breaker.state(), told()),
        (BreakerState::HalfOpen, Some(Trouble::Away))
    );
    probe.end(Finding::Away, later);
    assert_eq!(told(), Some(Trouble::Away));
    breaker.reset();
    assert_eq!(told(), None);
}

/// Batches that get no answer say that it is away, until the tail says that it is not: then what they do fails, and no more.
#[test]
fn whether_it_is_away_is_for_the_tail_to_say() {
    let (breaker, now) = (breaker(3, 1), Instant::now());
    fail(&breaker, 3, now);
    assert_eq!(breaker.trouble(), Some(Trouble::Away));
    for _ in 0..3 {
        breaker.heard();
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.trouble(), Some(Trouble::WritesFail));
    }
    // Nobody writes: the tail alone opens it, and ends that.
    breaker.reset();
    for _ in 0..3 {
        breaker.missed();
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.trouble(), Some(Trouble::Away));
    breaker.heard();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
}
