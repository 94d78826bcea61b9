//! A manager that hands tasks to workers, who think, call tools, fail now and then, and report: as a stream of events.
//!
//! # Invariants
//! - Deterministic: the same seed and number of workers give the same events, on any machine.
//! - No clock: an event says at which millisecond of the play it happens.

mod acts;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

/// Between two signs of life.
const HEARTBEAT_MS: u64 = 10_000;

/// An event and when it happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    /// Milliseconds since the play began.
    pub at_ms: u64,
    /// The event as its JSON object, without an id.
    pub event: Value,
}

#[derive(Debug, Clone)]
struct Task {
    name: String,
    goal: &'static str,
    attempt: u32,
    steps_left: u32,
    steps: u32,
    tokens: u64,
    begun_ms: u64,
    trace: u128,
    tool: (&'static str, u64),
    calls: u32,
}

#[derive(Debug, Clone)]
struct Worker {
    name: String,
    task: Option<Task>,
    done: u64,
}

/// What a worker (by its place) or the manager does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    ManagerLives,
    WorkerLives(usize),
    Assign(usize),
    Begin(usize),
    Think(usize),
    ToolReturns(usize),
}

/// The play. An endless iterator.
#[derive(Debug, Clone)]
pub struct Simulation {
    rng: Xoshiro256PlusPlus,
    now_ms: u64,
    acts: BinaryHeap<Reverse<(u64, u64, Act)>>,
    planned: u64,
    workers: Vec<Worker>,
    failed: VecDeque<Task>,
    tasks: u64,
    played: VecDeque<Played>,
}

impl Simulation {
    /// A play of so many workers.
    #[must_use]
    pub fn new(seed: u64, workers: usize) -> Self {
        let mut play = Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            now_ms: 0,
            acts: BinaryHeap::new(),
            planned: 0,
            workers: (1..=workers)
                .map(|n| Worker {
                    name: format!("worker-{n:02}"),
                    task: None,
                    done: 0,
                })
                .collect(),
            failed: VecDeque::new(),
            tasks: 0,
            played: VecDeque::new(),
        };
        play.plan(0, Act::ManagerLives);
        for at in 0..workers {
            // Nobody starts on the same instant.
            let life = play.rng.random_range(0..HEARTBEAT_MS);
            play.plan(life, Act::WorkerLives(at));
            let first = play.rng.random_range(0..5_000);
            play.plan(first, Act::Assign(at));
        }
        play
    }

    fn plan(&mut self, in_ms: u64, act: Act) {
        self.planned = self.planned.saturating_add(1);
        let at = self.now_ms.saturating_add(in_ms);
        self.acts.push(Reverse((at, self.planned, act)));
    }

    fn pick<T: Copy + Default>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.rng).copied().unwrap_or_default()
    }

    /// About `usual`, at times much longer: what waits for a network or a model has a long tail.
    fn duration(&mut self, usual: u64) -> u64 {
        let tail = self.pick(&[1, 1, 1, 1, 2, 2, 3, 6]);
        let usual = usual.max(2);
        let floor = usual.div_euclid(2);
        floor
            .saturating_add(self.rng.random_range(0..usual))
            .saturating_mul(tail)
    }

    fn say(&mut self, topic: &str, subject: &str, source: &str, trace: Option<u128>, data: Value) {
        let priority = match topic {
            "agent.heartbeat.sent" => "low",
            "agent.task.failed" => "high",
            _ => "normal",
        };
        let mut event = serde_json::Map::new();
        for (name, value) in [
            ("topic", topic),
            ("subject", subject),
            ("source", source),
            ("priority", priority),
        ] {
            event.insert(name.to_owned(), value.into());
        }
        if let Some(trace) = trace {
            let span = self.rng.random_range(1..=u64::MAX);
            let trace = format!("00-{trace:032x}-{span:016x}-01");
            event.insert("trace".to_owned(), trace.into());
        }
        event.insert("data".to_owned(), data);
        self.played.push_back(Played {
            at_ms: self.now_ms,
            event: event.into(),
        });
    }
}

impl Iterator for Simulation {
    type Item = Played;

    fn next(&mut self) -> Option<Played> {
        while self.played.is_empty() {
            let Reverse((at, _, act)) = self.acts.pop()?;
            self.now_ms = at;
            self.perform(act);
        }
        self.played.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_play() {
        let play = |seed| Simulation::new(seed, 4).take(500).collect::<Vec<_>>();
        assert_eq!(play(7), play(7));
        assert_ne!(play(7), play(8));
    }

    #[test]
    fn every_event_can_be_stored_and_every_topic_occurs() {
        let mut topics = BTreeSet::new();
        let mut last = 0;
        for played in Simulation::new(1, 6).take(20_000) {
            let event = crate::event::new_event::parse(&played.event.to_string(), 4_096).unwrap();
            topics.insert(event.topic.as_str().to_owned());
            assert!(played.at_ms >= last);
            last = played.at_ms;
        }
        let wanted = [
            "heartbeat.sent",
            "message.sent",
            "state.updated",
            "task.assigned",
            "task.completed",
            "task.created",
            "task.failed",
            "task.started",
            "tokens.used",
            "tool.called",
            "tool.returned",
        ];
        let topics: Vec<&str> = topics
            .iter()
            .map(|t| t.trim_start_matches("agent."))
            .collect();
        assert_eq!(topics, wanted);
    }

    #[test]
    fn tasks_end_as_they_do_in_life() {
        let count = |topic: &str| {
            Simulation::new(3, 8)
                .take(50_000)
                .filter(|p| p.event["topic"] == topic)
                .count()
        };
        let (completed, failed) = (count("agent.task.completed"), count("agent.task.failed"));
        // Some fail, most do not.
        assert!(
            failed * 4 < completed && failed * 40 > completed,
            "{completed} {failed}"
        );
    }
}
