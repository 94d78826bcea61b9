//! What is remembered: how new it is, how often it is read, how much it may take.

use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::*;

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn known(change: Mark) -> Arc<Known> {
    Arc::new(Known {
        settings: Some(Arc::default()),
        change,
        rows: HashMap::new(),
        connection: 0,
    })
}

/// A database: the last change, how often it was read, and a gate before each answer.
#[derive(Clone)]
struct Database {
    change: Arc<Mutex<Mark>>,
    reads: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Database {
    fn new(open: usize) -> Self {
        Self {
            change: Arc::default(),
            reads: Arc::default(),
            at_once: Arc::default(),
            gate: Arc::new(Semaphore::new(open)),
        }
    }

    fn change(&self) -> Mark {
        let change = Some(Uuid::now_v7());
        *self.change.lock().unwrap() = change;
        change
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    async fn get(&self, remembered: &Remembered, tenant: &Tenant) -> Mark {
        let database = self.clone();
        let read = move |_| async move {
            database.reads.fetch_add(1, Ordering::SeqCst);
            assert_eq!(database.at_once.fetch_add(1, Ordering::SeqCst), 0);
            let change = *database.change.lock().unwrap();
            database.gate.acquire().await.unwrap().forget();
            database.at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(known(change))
        };
        remembered.get(tenant, read).await.unwrap().change
    }
}

#[tokio::test]
async fn a_change_is_read_once_and_by_its_own_tenant_only() {
    let (remembered, database) = (Remembered::default(), Database::new(100));
    let (one, other) = (tenant("one"), tenant("other"));
    for _ in 0..3 {
        database.get(&remembered, &one).await;
        database.get(&remembered, &other).await;
    }
    assert_eq!(database.reads(), 2);
    let change = database.change();
    remembered.announce(&one, change).await;
    remembered.announce(&tenant("nobody"), change).await;
    for _ in 0..3 {
        assert_eq!(database.get(&remembered, &one).await, change);
        assert_eq!(database.get(&remembered, &other).await, None);
    }
    assert_eq!(database.reads(), 3);
    // What was read before its change was announced is new enough.
    remembered.announce(&one, change).await;
    database.get(&remembered, &one).await;
    assert_eq!(database.reads(), 3);
}

#[tokio::test]
async fn what_changes_while_it_is_read_is_read_again() {
    let (remembered, database) = (Remembered::default(), Database::new(0));
    let name = tenant("one");
    let mut early = Box::pin(database.get(&remembered, &name));
    assert!((&mut early).now_or_never().is_none());
    assert_eq!(database.reads(), 1);
    let change = database.change();
    remembered.announce(&name, change).await;
    let mut late = Box::pin(database.get(&remembered, &name));
    assert!((&mut late).now_or_never().is_none());
    database.gate.add_permits(2);
    assert_eq!(early.await, None, "it asked before");
    assert_eq!(late.await, change);
}

#[tokio::test]
async fn however_often_it_changes_one_is_reading_and_one_waits() {
    let (remembered, database) = (Remembered::default(), Database::new(0));
    let name = tenant("one");
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut one = Box::pin(database.get(&remembered, &name));
        assert!((&mut one).now_or_never().is_none());
        waiting.push(one);
        remembered.announce(&name, database.change()).await;
    }
    database.gate.add_permits(100);
    let mut last = None;
    for one in waiting {
        last = one.await;
    }
    assert_eq!(database.reads(), 2);
    assert_eq!(last, *database.change.lock().unwrap());
}

#[tokio::test]
async fn a_read_that_fails_or_is_given_up_is_begun_again() {
    let (remembered, database) = (Remembered::default(), Database::new(0));
    let name = tenant("one");
    let failed = remembered.get(&name, |_| std::future::ready(Err(Unread)));
    assert_eq!(failed.await.unwrap_err(), Unread);
    let mut given_up = Box::pin(database.get(&remembered, &name));
    assert!((&mut given_up).now_or_never().is_none());
    drop(given_up);
    database.at_once.store(0, Ordering::SeqCst);
    database.gate.add_permits(1);
    assert_eq!(database.get(&remembered, &name).await, None);
    assert_eq!(database.reads(), 2);
}

#[tokio::test]
async fn what_all_of_it_weighs_is_bounded() {
    let remembered = Remembered::default();
    let text = format!("^{}$", "[a-z0-9]{20}".repeat(10));
    let schema: Vec<_> = (0..10)
        .map(|_| serde_json::json!({ "pattern": text }))
        .collect();
    let schema = serde_json::json!({ "allOf": schema });
    let heavy = super::super::schema::Schema::new(&schema).unwrap();
    let declared = Declared {
        pattern: crate::event::TopicPattern::any(),
        schema: Some(Arc::new(heavy)),
        priority: None,
    };
    // As many expressions as a tenant may have.
    let rows: HashMap<_, _> = (0..100)
        .map(|row| (row.to_string(), declared.clone()))
        .collect();
    let heavy = Known {
        rows,
        ..(*known(None)).clone()
    };
    let weight = u64::from(heavy.weight());
    assert!(
        weight < SETTINGS_BYTES_MAX,
        "{weight}: one tenant finds room"
    );
    for number in 0..50 {
        let heavy = Arc::new(heavy.clone());
        let read = |_| std::future::ready(Ok(heavy));
        remembered
            .get(&tenant(&format!("t{number}")), read)
            .await
            .unwrap();
    }
    remembered.0.run_pending_tasks().await;
    assert!(remembered.0.weighted_size() <= SETTINGS_BYTES_MAX);
    let left = remembered.tenants().len();
    assert!(
        left >= 1 && u64::try_from(left).unwrap() <= SETTINGS_BYTES_MAX / weight,
        "{left}"
    );
}
