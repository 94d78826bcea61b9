//! Who is told to go, and what counts until when.

use super::*;

const ROOM: usize = 1_000;

fn sessions() -> Sessions {
    let room = Room {
        bytes: ROOM,
        idle: Duration::from_millis(50),
    };
    Sessions::new(room, Metrics::new())
}

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn told(session: &Session) -> Option<Why> {
    session.state.why.get().copied()
}

fn pass(sessions: &Sessions, ms: u64) {
    let until = sessions.now() + ms;
    while sessions.now() < until {
        std::thread::yield_now();
    }
}

#[test]
fn only_the_idle_of_the_tenant_are_told_to_go_and_once() {
    let sessions = sessions();
    let [acme, beta] = ["acme", "beta"].map(tenant);
    let enter = |tenant| sessions.enter(tenant, 10, None).unwrap();
    let (idle, active, _other) = (enter(&acme), enter(&acme), enter(&beta));
    assert_eq!(sessions.drop_idle(Some(&acme), Duration::from_mins(1)), 0);
    pass(&sessions, 50);
    active.touch();
    let idle_for = Duration::from_millis(40);
    assert_eq!(sessions.drop_idle(Some(&acme), idle_for), 1);
    assert_eq!((told(&idle), told(&active)), (Some(Why::Idle), None));
    assert_eq!(sessions.drop_idle(Some(&acme), idle_for), 0);
    assert_eq!(sessions.drop_idle(None, Duration::ZERO), 2);
    drop(idle);
    assert_eq!(sessions.usage().sessions, 2);
}

#[test]
fn the_idle_go_before_the_slow_the_slowest_first_and_the_healthy_never() {
    let sessions = sessions();
    let [acme, beta] = ["acme", "beta"].map(tenant);
    let enter = |tenant| sessions.enter(tenant, 100, None).unwrap();
    let (idle, idler) = (enter(&acme), enter(&beta));
    let (small, large, healthy) = (enter(&acme), enter(&acme), enter(&beta));
    for one in [&small, &large, &healthy] {
        one.subscribe(1, 10).unwrap();
    }
    pass(&sessions, 60);
    idle.touch();
    pass(&sessions, 60);
    let waits_small = small.waits(100);
    let waits_large = large.waits(270);
    let all = || [&idler, &idle, &large, &small, &healthy].map(told);
    let evicted = |cause| Some(Why::Evicted(cause));
    let (by_idle, by_slow) = (evicted(Eviction::Idle), evicted(Eviction::Slow));
    assert_eq!((sessions.usage().bytes, all()), (900, [None; 5]));
    let more = healthy.waits(170);
    drop(more);
    assert_eq!(all(), [by_idle, None, None, None, None], "longest idle");
    // What is on its way out counts as free, so nobody else goes for the same bytes.
    let _waits = small.waits(1);
    assert_eq!(all(), [by_idle, None, None, None, None]);
    let _most = small.waits(210);
    assert_eq!(all(), [by_idle, by_idle, None, None, None]);
    let _most = small.waits(100);
    assert_eq!(
        all(),
        [by_idle, by_idle, None, by_slow, None],
        "most waiting"
    );
    let usage = sessions.usage();
    assert_eq!((usage.idle, usage.slow, usage.refused), (2, 1, 0));
    drop((waits_small, waits_large));
    // Of those who take what they get nobody goes: who comes is refused.
    healthy.subscribe(2, 700).unwrap();
    assert_eq!(healthy.subscribe(3, 800), Err(Full));
    assert!(matches!(sessions.enter(&acme, 200, None), Err(Full)));
    assert_eq!((told(&healthy), told(&large)), (None, None));
    assert_eq!(sessions.usage().refused, 2);
}

#[test]
fn what_is_sent_counts_until_it_is_dropped() {
    let sessions = sessions();
    let acme = tenant("acme");
    let page = |length| Bytes::from(vec![b'x'; length]);
    let small = sessions.answer(&acme, page(SHARE_BYTES_FREE), None);
    assert_eq!(small.unwrap().len(), SHARE_BYTES_FREE);
    assert_eq!(sessions.usage().sessions, 0);
    let session = sessions.enter(&acme, 100, None).unwrap();
    let (one, other) = (
        session.sending_next(page(300)),
        session.sending_next(page(200)),
    );
    assert_eq!(sessions.usage().bytes, 600);
    let part = one.slice(..10);
    drop(one);
    assert_eq!(sessions.usage().bytes, 600, "a part keeps the whole");
    drop(part);
    assert_eq!(sessions.usage().bytes, 300);
    drop(session);
    let left = sessions.usage();
    assert_eq!((left.sessions, left.bytes), (1, 200), "still on its way");
    assert_eq!(sessions.drop_idle(None, Duration::ZERO), 0);
    drop(other);
    let left = sessions.usage();
    assert_eq!((left.sessions, left.bytes), (0, 0));
    // A page that alone is too much: its line is asked to end.
    let cut = Cut::default();
    let large = sessions.answer(&acme, page(SHARE_BYTES_FREE + 1), Some(cut.clone()));
    assert!(cut.0.is_cancelled());
    drop(large);
    assert_eq!(sessions.usage().bytes, 0);
}
