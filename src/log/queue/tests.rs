//! What the queue gives out, to whom, and whom it refuses.

mod held;

use super::*;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::event::limits::APPEND_QUEUE_MAX;
use crate::event::{EventId, Tenant, new_event};

fn group(tenant: &str, events: usize, sequence: Option<Sequence>) -> Group {
    let event = || new_event::parse(r#"{"topic":"a.b"}"#, 1_000).unwrap();
    let id = |_| EventId::from(uuid::Uuid::now_v7());
    Group {
        tenant: Tenant::parse(tenant).unwrap(),
        events: (0..events).map(|_| event()).collect(),
        ids: (0..events).map(id).collect(),
        expected: vec![None; events],
        is_atomic: true,
        deadline: Instant::now() + Duration::from_mins(1),
        is_held: false,
        leave: None,
        received: Instant::now(),
        weight: events * 100,
        class: Priority::Normal,
        reply: oneshot::channel().0,
        sequence,
        under_way: None,
        traced: None,
        outcomes: Vec::new(),
    }
}

fn of(class: Priority, tenant: &str, events: usize) -> Group {
    Group {
        class,
        ..group(tenant, events, None)
    }
}

fn queue() -> Arc<Queue> {
    Arc::new(Queue::new(BATCH_EVENTS_MAX))
}

/// What a lane takes that is done with it at once.
fn take(queue: &Arc<Queue>) -> Vec<Group> {
    match queue.take() {
        Next::Batch(taken) => taken.groups,
        Next::NotBefore(_) | Next::Nothing => Vec::new(),
    }
}

fn tenants(batch: &[Group]) -> String {
    batch.iter().map(|group| group.tenant.as_str()).collect()
}

#[test]
fn while_the_database_is_away_what_takes_long_is_not_shut_out() {
    // Its lanes sleep when the database comes back: nobody would open it again.
    for (queue, is_let_in) in [(queue(), false), (Arc::new(Queue::patient()), true)] {
        assert!(queue.shut().is_empty());
        assert_eq!(queue.push(group("a", 1, None)).is_ok(), is_let_in);
        queue.open();
        assert!(queue.push(group("a", 1, None)).is_ok());
    }
}

#[test]
fn tenants_take_turns_and_what_does_not_fit_is_next() {
    let queue = queue();
    for _ in 0..3 {
        queue.push(group("a", 900, None)).unwrap();
    }
    queue.push(group("b", 1, None)).unwrap();
    queue.push(group("c", 1_500, None)).unwrap();
    // That of c and the third of a do not go with the others.
    assert_eq!(tenants(&take(&queue)), "aba");
    queue.push(group("b", 1, None)).unwrap();
    assert_eq!(tenants(&take(&queue)), "cb");
    assert_eq!(tenants(&take(&queue)), "a");
    assert!(take(&queue).is_empty());
    assert_eq!(queue.depth(), (0, 0));
}

#[test]
fn a_tenant_that_floods_leaves_room_and_is_no_reason_to_wait() {
    let queue = queue();
    let mut pushed = 0;
    while queue.push(group("loud", 1, None)).is_ok() {
        pushed += 1;
    }
    assert_eq!(pushed, APPEND_QUEUE_MAX / 10 * 8 / 4 * 3);
    queue.push(group("quiet", 1, None)).unwrap();
    let batch = take(&queue);
    assert_eq!(batch.len(), BATCH_EVENTS_MAX);
    assert_eq!(tenants(&batch[..2]), "loudquiet");
}

#[test]
fn a_sequence_stays_in_order_and_holds_up_nobody_else() {
    let queue = queue();
    let sequence = Sequence::next();
    queue.push(group("a", 1, Some(sequence))).unwrap();
    let first = take(&queue);
    assert_eq!(first.len(), 1);
    for events in [2, 3] {
        queue.push(group("a", events, Some(sequence))).unwrap();
    }
    queue.push(group("a", 4, None)).unwrap();
    queue.push(group("b", 5, None)).unwrap();
    let others: Vec<usize> = take(&queue).iter().map(|g| g.events.len()).collect();
    assert_eq!(others, [5, 4]);
    assert!(take(&queue).is_empty());
    drop(first);
    let rest: Vec<usize> = take(&queue).iter().map(|g| g.events.len()).collect();
    assert_eq!(rest, [2, 3]);
}

#[test]
fn what_is_given_back_is_first_and_what_is_late_is_dropped() {
    let queue = queue();
    let late = Group {
        deadline: Instant::now(),
        ..group("a", 9, None)
    };
    queue.push(late).unwrap();
    for events in [1, 2] {
        queue.push(group("a", events, None)).unwrap();
    }
    let batch = take(&queue);
    assert_eq!(batch.len(), 2);
    queue.push(group("a", 3, None)).unwrap();
    assert!(queue.give_back(batch).is_empty());
    let all: Vec<usize> = take(&queue).iter().map(|g| g.events.len()).collect();
    assert_eq!(all, [1, 2, 3]);
}

#[test]
fn the_urgent_go_first_and_nobody_starves() {
    let queue = Arc::new(Queue::new(2));
    for class in [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Critical,
    ] {
        queue.push(of(class, "a", 2)).unwrap();
    }
    let classes = || take(&queue).first().map(|group| group.class);
    for class in Priority::ALL {
        assert_eq!(classes(), Some(class));
    }
    let long_ago = Instant::now()
        .checked_sub(Duration::from_millis(300))
        .unwrap();
    queue
        .push(Group {
            received: long_ago,
            ..of(Priority::Low, "a", 2)
        })
        .unwrap();
    let mut passed = 0;
    loop {
        queue.push(of(Priority::Critical, "b", 2)).unwrap();
        if classes() == Some(Priority::Low) {
            break;
        }
        passed += 1;
        assert!(passed < 100, "low waits for ever");
    }
    assert_eq!(passed, 8);
}

#[test]
fn low_is_shed_first_and_critical_last() {
    let queue = queue();
    let mut taken_in = Vec::new();
    for class in [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Critical,
    ] {
        // Many tenants: it is not the share of one that ends it.
        let mut pushed = 0;
        while queue
            .push(of(class, &format!("t{}", pushed % 64), 1))
            .is_ok()
        {
            pushed += 1;
        }
        taken_in.push(pushed);
    }
    assert!(taken_in.iter().all(|pushed| *pushed > 300), "{taken_in:?}");
    let (all, _) = queue.depth();
    assert!(all > APPEND_QUEUE_MAX / 10 * 9 && all <= APPEND_QUEUE_MAX);
    let low = queue.by_priority();
    assert!(*low.of(Priority::Low) <= APPEND_QUEUE_MAX / 2);
}

#[test]
fn who_would_wait_too_long_is_shed_unless_it_is_critical() {
    let queue = queue();
    let waits = |class, seconds| Group {
        received: Instant::now()
            .checked_sub(Duration::from_secs(seconds))
            .unwrap(),
        ..of(class, "a", 1)
    };
    for class in Priority::ALL {
        for _ in 0..64 {
            queue.push(waits(class, 9)).unwrap();
        }
    }
    queue.push(of(Priority::Critical, "a", 1)).unwrap();
    for class in [Priority::High, Priority::Normal, Priority::Low] {
        let refused = queue.push(of(class, "a", 1)).unwrap_err();
        let Refusal::Full { retry_after } = refused else {
            panic!("{refused:?}");
        };
        // As long as the others have waited, and a random part more: no rate is known.
        let told = retry_after.as_secs();
        assert!((9..=11).contains(&told), "{told}");
        // Another tenant has its own turns.
        queue.push(of(class, "b", 1)).unwrap();
    }
}

#[test]
fn a_sequence_is_as_urgent_as_its_most_urgent_and_keeps_its_order() {
    let queue = Arc::new(Queue::new(1));
    let sequence = Sequence::next();
    let of_it = |class, events| Group {
        class,
        ..group("a", events, Some(sequence))
    };
    queue.push(of(Priority::Normal, "a", 9)).unwrap();
    queue.push(of_it(Priority::Low, 1)).unwrap();
    queue.push(of_it(Priority::Critical, 2)).unwrap();
    queue.push(of_it(Priority::Normal, 3)).unwrap();
    let next = || take(&queue).first().map(|group| group.events.len());
    assert_eq!(
        [next(), next(), next(), next()],
        [Some(1), Some(2), Some(3), Some(9)]
    );
}

#[test]
fn low_waits_for_company_while_a_batch_is_under_way_but_not_for_long() {
    let queue = queue();
    queue.push(of(Priority::Normal, "a", 1)).unwrap();
    let Next::Batch(under_way) = queue.take() else {
        panic!("nothing to take");
    };
    queue.push(of(Priority::Low, "a", 1)).unwrap();
    assert!(matches!(queue.take(), Next::NotBefore(_)));
    queue.push(of(Priority::Normal, "b", 1)).unwrap();
    assert_eq!(take(&queue).len(), 2, "there is company");
    queue
        .push(Group {
            received: Instant::now()
                .checked_sub(Duration::from_millis(251))
                .unwrap(),
            ..of(Priority::Low, "a", 1)
        })
        .unwrap();
    assert_eq!(take(&queue).len(), 1, "it is due");
    queue.push(of(Priority::Low, "a", 1)).unwrap();
    assert!(take(&queue).is_empty());
    drop(under_way);
    assert_eq!(take(&queue).len(), 1, "nothing is under way");
}

#[test]
fn who_is_refused_is_told_how_long_the_queue_needs() {
    let refused = |depth_of_others: usize| {
        let queue = queue();
        for n in 0..400 {
            let _ = queue.push(group(&format!("t{}", n % 20), 1, None));
        }
        // So fast: five a batch, a batch in ten milliseconds.
        {
            let mut state = queue.lock();
            let began = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
            let five = ByPriority::new(|one| u32::from(one == Priority::Normal) * 5);
            for batch in 0..200 {
                let now = began + Duration::from_millis(batch * 10);
                state.drained.took(&five, 500, true, now);
            }
        }
        for n in 0..depth_of_others {
            queue
                .push(of(Priority::Critical, &format!("t{}", n % 20), 1))
                .unwrap();
        }
        match queue.push(of(Priority::Low, "late", 1)) {
            Err(Refusal::Full { retry_after }) => retry_after.as_secs_f64(),
            other => panic!("{other:?}"),
        }
    };
    // Low ones find room in the first half of the queue: 500 groups a second leave.
    let (near, far) = (refused(1_700), refused(3_500));
    assert!((1.0..=2.5).contains(&near), "{near}");
    assert!((3.5..=6.0).contains(&far), "{far}");
}
