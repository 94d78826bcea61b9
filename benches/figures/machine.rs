//! What the machine did meanwhile: processor time of the server, the load and everybody else.

/// The kernel's ticks a second.
const TICKS: f64 = 100.0;

/// Seconds of processor time since the start of each.
#[derive(Clone, Copy)]
pub struct Used {
    server: f64,
    load: f64,
    all: f64,
}

impl Used {
    pub fn now(server: u32) -> Self {
        Self {
            server: of(&server.to_string()),
            load: of("self"),
            all: everybody(),
        }
    }

    /// What was used since `before`, of this many seconds on all processors: as a sentence.
    pub fn since(self, before: Self, seconds: f64) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let share = |now: f64, then: f64| (now - then) / (seconds * cores) * 100.0;
        let (server, load) = (
            share(self.server, before.server),
            share(self.load, before.load),
        );
        let all = share(self.all, before.all);
        format!(
            "of {cores:.0} processors: server {server:.0} %, load generator {load:.0} %, database and the rest {:.0} %, idle {:.0} %",
            (all - server - load).max(0.0),
            (100.0 - all).max(0.0)
        )
    }
}

fn of(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Behind the name, which may hold anything: the state is the third field, user and system time 14th and 15th.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

fn everybody() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let all: Vec<f64> = stat
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|t| t.parse().unwrap())
        .collect();
    // All but idle and waiting for the disk; guests are counted in user time.
    (all[..8].iter().sum::<f64>() - all[3] - all[4]) / TICKS
}
