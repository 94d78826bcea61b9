//! What is held while the database is away: nobody's lateness, and gone when its time is over.

use super::*;

fn waiting_for(seconds: u64, class: Priority) -> Group {
    Group {
        received: Instant::now()
            .checked_sub(Duration::from_secs(seconds))
            .unwrap(),
        ..of(class, "a", 1)
    }
}

fn held_for(seconds: u64, class: Priority) -> Group {
    Group {
        is_held: true,
        ..waiting_for(seconds, class)
    }
}

/// A held group waits because the database is away, and that is nobody's lateness.
#[test]
fn what_is_held_is_not_refused_for_its_wait_and_is_no_reason_to_refuse_others_after_it() {
    for class in Priority::ALL {
        let queue = queue();
        queue.shut();
        for _ in 0..200 {
            queue.push(held_for(20, class)).unwrap();
        }
        queue.push(held_for(0, class)).unwrap();
        queue.open();
        queue.push(of(class, "a", 1)).unwrap();
        queue.push(held_for(0, class)).unwrap();
    }
    // Nor is it refused where others are: it has said for how long it waits.
    let queue = queue();
    for _ in 0..64 {
        queue.push(waiting_for(9, Priority::Normal)).unwrap();
    }
    queue.push(of(Priority::Normal, "a", 1)).unwrap_err();
    queue.push(held_for(0, Priority::Normal)).unwrap();
}

#[test]
fn whose_time_is_over_leaves_a_queue_that_nobody_takes_from() {
    let queue = queue();
    let late = |seconds: u64| Group {
        deadline: Instant::now().checked_sub(Duration::from_secs(1)).unwrap(),
        ..held_for(seconds, Priority::Low)
    };
    queue.shut();
    for seconds in 0..3 {
        queue.push(late(seconds)).unwrap();
        queue.push(held_for(0, Priority::Low)).unwrap();
    }
    assert_eq!(queue.take_late(Instant::now()).len(), 3);
    assert_eq!(queue.depth(), (3, 300), "with their bytes");
    queue.open();
    assert_eq!(take(&queue).len(), 3);
    // What takes long has a last turn, where there are turns.
    let patient = Arc::new(Queue::patient());
    patient.push(late(0)).unwrap();
    assert!(patient.take_late(Instant::now()).is_empty());
    patient.shut();
    assert_eq!(patient.take_late(Instant::now()).len(), 1);
}

#[test]
fn what_is_given_back_to_a_queue_that_was_shut_is_given_out_unless_it_is_held() {
    let queue = queue();
    queue.push(of(Priority::Normal, "a", 1)).unwrap();
    queue.push(held_for(0, Priority::Normal)).unwrap();
    let batch = take(&queue);
    assert_eq!(batch.len(), 2);
    queue.shut();
    let out = queue.give_back(batch);
    assert_eq!(out.len(), 1);
    assert!(!out[0].is_held);
    assert_eq!(queue.depth(), (1, 100));
}

/// Nothing leaves while the database is away, which says nothing of how fast it leaves otherwise.
#[test]
fn an_outage_does_not_slow_down_what_whoever_is_refused_is_told() {
    let queue = queue();
    {
        let mut state = queue.lock();
        let began = Instant::now().checked_sub(Duration::from_secs(32)).unwrap();
        let five = ByPriority::new(|one| u32::from(one == Priority::Normal) * 5);
        for batch in 0..200 {
            let now = began + Duration::from_millis(batch * 10);
            state.drained.took(&five, 500, true, now);
        }
    }
    queue.shut();
    queue.open();
    for n in 0..2_000 {
        let _ = queue.push(group(&format!("t{}", n % 20), 1, None));
    }
    queue
        .lock()
        .drained
        .took(&ByPriority::default(), 0, true, Instant::now());
    let in_the_way = crate::log::drained::InTheWay {
        groups: 500,
        ..Default::default()
    };
    let told = queue.lock().drained.retry_after(
        Priority::Low,
        &in_the_way,
        Duration::ZERO,
        Instant::now(),
    );
    // 500 groups a second left before.
    assert!(told <= Duration::from_secs(3), "{told:?}");
}
