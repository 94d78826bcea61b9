//! What manager and workers do, one act at a time, and what follows from it.

use rand::RngExt as _;
use serde_json::json;

use super::{Act, HEARTBEAT_MS, Simulation, Task};

/// The one who hands out tasks.
const MANAGER: &str = "manager-1";
/// A task that failed so often is given up.
const ATTEMPTS_MAX: u32 = 3;
/// Tools: name, milliseconds it usually takes, failures in a thousand calls.
const TOOLS: [(&str, u64, u32); 7] = [
    ("search_web", 900, 40),
    ("read_file", 60, 10),
    ("query_database", 250, 25),
    ("run_tests", 9_000, 120),
    ("send_email", 400, 30),
    ("fetch_url", 700, 70),
    ("summarize_document", 3_500, 15),
];
const GOALS: [&str; 8] = [
    "Reconcile the invoices of the week",
    "Find out why the nightly build failed",
    "Draft a reply to the customer's complaint",
    "Collect three offers for the hardware order",
    "Summarize the meeting and name the open points",
    "Check the contract against the price list",
    "Bring the product page up to date",
    "Prepare the figures for the board",
];
const TOOL_ERRORS: [&str; 4] = [
    "timeout",
    "rate_limited",
    "not_found",
    "upstream_unavailable",
];

impl Simulation {
    /// Lets one act happen, and plans what follows from it.
    pub(super) fn perform(&mut self, act: Act) {
        match act {
            Act::ManagerLives => {
                let waiting = self.failed.len();
                let busy = self.workers.iter().filter(|w| w.task.is_some()).count();
                let data =
                    json!({"status": "running", "busy_workers": busy, "waiting_tasks": waiting});
                self.say("agent.heartbeat.sent", MANAGER, MANAGER, None, data);
                self.plan(HEARTBEAT_MS, act);
            }
            Act::WorkerLives(at) => self.worker_lives(at),
            Act::Assign(at) => self.assign(at),
            Act::Begin(at) => self.begin(at),
            Act::Think(at) => self.think(at),
            Act::ToolReturns(at) => self.tool_returns(at),
        }
    }

    fn worker_lives(&mut self, at: usize) {
        if let Some(worker) = self.workers.get(at).cloned() {
            let status = if worker.task.is_some() {
                "working"
            } else {
                "idle"
            };
            let memory = self.rng.random_range(180..420);
            let data = json!({"status": status, "uptime_s": self.now_ms.div_euclid(1_000),
                "memory_mib": memory, "tasks_done": worker.done});
            self.say(
                "agent.heartbeat.sent",
                &worker.name,
                &worker.name,
                None,
                data,
            );
        }
        let jitter = self.rng.random_range(0..400);
        self.plan(HEARTBEAT_MS.saturating_add(jitter), Act::WorkerLives(at));
    }

    /// The manager picks a task that failed, or thinks of one, and hands it to an idle worker.
    fn assign(&mut self, at: usize) {
        let task = match self.failed.pop_front() {
            Some(task) => task,
            None => self.create(),
        };
        let Some(name) = self.workers.get(at).map(|w| w.name.clone()) else {
            return;
        };
        let trace = Some(task.trace);
        let data = json!({"task": task.name, "worker": name, "attempt": task.attempt});
        self.say("agent.task.assigned", &name, MANAGER, trace, data);
        let text = format!(
            "{}: please take this on, attempt {}.",
            task.goal, task.attempt
        );
        let data = json!({"from": MANAGER, "to": name, "task": task.name, "text": text});
        self.say("agent.message.sent", &name, MANAGER, trace, data);
        if let Some(worker) = self.workers.get_mut(at) {
            worker.task = Some(task);
        }
        let delay = self.duration(400);
        self.plan(delay, Act::Begin(at));
    }

    fn create(&mut self) -> Task {
        self.tasks = self.tasks.saturating_add(1);
        let goal = self.pick(&GOALS);
        let task = Task {
            name: format!("task-{:04}", self.tasks),
            goal,
            attempt: 1,
            steps_left: 0,
            steps: 0,
            tokens: 0,
            begun_ms: 0,
            trace: self.rng.random_range(1..=u128::MAX),
            tool: ("", 0),
            calls: 0,
        };
        let data =
            json!({"task": task.name, "goal": goal, "due_in_s": self.rng.random_range(60..1_800)});
        self.say(
            "agent.task.created",
            MANAGER,
            MANAGER,
            Some(task.trace),
            data,
        );
        task
    }

    fn begin(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let steps = self.rng.random_range(2..=9);
        let Some((name, task)) = self.with_task(at, |task| {
            task.steps_left = steps;
            task.steps = steps;
            task.begun_ms = now_ms;
            task.tokens = 0;
        }) else {
            return;
        };
        let trace = Some(task.trace);
        let data = json!({"task": task.name, "attempt": task.attempt});
        self.say("agent.task.started", &name, &name, trace, data);
        let data = json!({"status": "working", "task": task.name, "progress": 0});
        self.say("agent.state.updated", &name, &name, trace, data);
        let delay = self.duration(2_500);
        self.plan(delay, Act::Think(at));
    }

    /// The model has answered: with a tool to call, or with the result.
    fn think(&mut self, at: usize) {
        let input = self.rng.random_range(400..6_000_u64);
        let output = self.rng.random_range(30..900_u64);
        let tool = self.pick(&TOOLS);
        let takes_ms = self.duration(tool.1);
        let Some((name, task)) = self.with_task(at, |task| {
            task.tokens = task.tokens.saturating_add(input).saturating_add(output);
            task.tool = (tool.0, takes_ms);
            task.calls = task.calls.saturating_add(1);
        }) else {
            return;
        };
        let trace = Some(task.trace);
        let data = json!({"task": task.name, "model": "planner-large", "input_tokens": input, "output_tokens": output});
        self.say("agent.tokens.used", &name, &name, trace, data);
        if task.steps_left == 0 {
            return self.complete(at, &name, &task);
        }
        let data = json!({"task": task.name, "tool": tool.0, "call": call_id(&task)});
        self.say("agent.tool.called", &name, &name, trace, data);
        self.plan(takes_ms, Act::ToolReturns(at));
    }

    fn tool_returns(&mut self, at: usize) {
        let chance = self.rng.random_range(0..1_000_u32);
        let Some((name, task)) = self.with_task(at, |task| {
            task.steps_left = task.steps_left.saturating_sub(1);
        }) else {
            return;
        };
        let (tool, takes_ms) = task.tool;
        let failures = TOOLS.iter().find(|t| t.0 == tool).map_or(0, |t| t.2);
        let mut data = json!({"task": task.name, "tool": tool, "call": call_id(&task), "duration_ms": takes_ms, "ok": chance >= failures});
        let error = self.pick(&TOOL_ERRORS);
        if let (true, Some(data)) = (chance < failures, data.as_object_mut()) {
            data.insert("error".to_owned(), error.into());
        }
        self.say("agent.tool.returned", &name, &name, Some(task.trace), data);
        // One failure in three cannot be worked around.
        if chance < failures.div_euclid(3) {
            return self.fail(at, &name, task, error);
        }
        let done = task.steps.saturating_sub(task.steps_left);
        let progress = done
            .saturating_mul(100)
            .checked_div(task.steps)
            .unwrap_or_default();
        let data = json!({"progress": progress});
        self.say("agent.state.updated", &name, &name, Some(task.trace), data);
        let delay = self.duration(2_500);
        self.plan(delay, Act::Think(at));
    }

    fn complete(&mut self, at: usize, name: &str, task: &Task) {
        let took_ms = self.now_ms.saturating_sub(task.begun_ms);
        let data = json!({"task": task.name, "attempt": task.attempt, "duration_ms": took_ms,
            "steps": task.steps, "tokens": task.tokens});
        self.say("agent.task.completed", name, name, Some(task.trace), data);
        let text = format!("{}: done.", task.goal);
        let data = json!({"from": name, "to": MANAGER, "task": task.name, "text": text});
        self.say("agent.message.sent", MANAGER, name, Some(task.trace), data);
        if let Some(worker) = self.workers.get_mut(at) {
            worker.done = worker.done.saturating_add(1);
        }
        self.rest(at, name, task.trace);
    }

    fn fail(&mut self, at: usize, name: &str, task: Task, error: &str) {
        let took_ms = self.now_ms.saturating_sub(task.begun_ms);
        let is_last = task.attempt >= ATTEMPTS_MAX;
        let data = json!({"task": task.name, "attempt": task.attempt, "duration_ms": took_ms,
            "error": error, "will_retry": !is_last});
        self.say("agent.task.failed", name, name, Some(task.trace), data);
        self.rest(at, name, task.trace);
        if !is_last {
            self.failed.push_back(Task {
                attempt: task.attempt.saturating_add(1),
                ..task
            });
        }
    }

    /// The worker lays its task down and waits for another.
    fn rest(&mut self, at: usize, name: &str, trace: u128) {
        let data = json!({"status": "idle", "task": null, "progress": null});
        self.say("agent.state.updated", name, name, Some(trace), data);
        if let Some(worker) = self.workers.get_mut(at) {
            worker.task = None;
        }
        let delay = self.duration(1_500);
        self.plan(delay, Act::Assign(at));
    }

    /// Changes a worker's task; its name and the task as it is then.
    fn with_task(&mut self, at: usize, change: impl FnOnce(&mut Task)) -> Option<(String, Task)> {
        let worker = self.workers.get_mut(at)?;
        let task = worker.task.as_mut()?;
        change(task);
        Some((worker.name.clone(), task.clone()))
    }
}

fn call_id(task: &Task) -> String {
    format!("{}-call-{}", task.name, task.calls)
}
