//! An ordered, bounded, parallel map: worker threads compute items ahead of the consumer, which receives them in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Tells a job that nobody waits for it any more.
pub(super) struct Stop(AtomicBool);

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Yields `job(0), job(1), …, job(total - 1)`, each computed on one of several threads.
///
/// At most `ahead` items are computed or waiting beyond those taken. Dropping it stops the threads and waits for them; a long
/// job may end early when its [`Stop`] is set. An item whose job panics is `None`.
pub(super) struct Prefetch<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    stop: Stop,
    total: usize,
    ahead: usize,
}

struct State<T> {
    /// The first item that no thread has begun.
    next: usize,
    /// The first item that the consumer has not taken.
    wanted: usize,
    ready: BTreeMap<usize, Option<T>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, then claims an item; `None` when there is no more to do.
    fn claim(&self) -> Option<usize> {
        let busy = |state: &mut State<T>| {
            !self.stop.is_set()
                && state.next < self.total
                && state.next >= state.wanted + self.ahead
        };
        let mut state = self
            .changed
            .wait_while(self.lock(), busy)
            .unwrap_or_else(PoisonError::into_inner);
        if self.stop.is_set() || state.next == self.total {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `workers` threads on `job`.
    pub(super) fn new(
        total: usize,
        workers: usize,
        ahead: usize,
        job: impl Fn(usize, &Stop) -> T + Send + Sync + 'static,
    ) -> Self {
        let workers = workers.clamp(1, total.max(1));
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                next: 0,
                wanted: 0,
                ready: BTreeMap::new(),
            }),
            changed: Condvar::new(),
            stop: Stop(AtomicBool::new(false)),
            total,
            ahead: ahead.max(1),
        });
        let job = Arc::new(job);
        let threads = (0..workers)
            .map(|worker| {
                let (shared, job) = (shared.clone(), job.clone());
                let work = move || {
                    while let Some(item) = shared.claim() {
                        let result =
                            catch_unwind(AssertUnwindSafe(|| job(item, &shared.stop))).ok();
                        shared.lock().ready.insert(item, result);
                        shared.changed.notify_all();
                    }
                };
                thread::Builder::new()
                    .name(format!("loader-{worker}"))
                    .spawn(work)
                    .expect("the system starts a thread")
            })
            .collect();
        Self { shared, threads }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = Option<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        if state.wanted == self.shared.total {
            return None;
        }
        let wanted = state.wanted;
        state = self
            .shared
            .changed
            .wait_while(state, |state| !state.ready.contains_key(&wanted))
            .unwrap_or_else(PoisonError::into_inner);
        let item = state.ready.remove(&wanted);
        state.wanted += 1;
        drop(state);
        self.shared.changed.notify_all();
        item
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        {
            // Under the lock, so that no thread checks the flag and then sleeps through the notice.
            let _state = self.shared.lock();
            self.shared.stop.0.store(true, Ordering::Relaxed);
        }
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[test]
    fn items_come_in_order_whatever_the_number_of_threads() {
        for workers in [1, 2, 7] {
            let items = Prefetch::new(50, workers, 3, |item, _| {
                thread::sleep(Duration::from_micros((item as u64 * 37) % 400));
                item * item
            });
            assert_eq!(
                items.map(Option::unwrap).collect::<Vec<_>>(),
                (0..50).map(|i| i * i).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn no_more_items_are_begun_than_room_allows() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = begun.clone();
        let mut items = Prefetch::new(100, 4, 3, move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst)
        });
        for taken in 1..=10 {
            items.next().unwrap().unwrap();
            thread::sleep(Duration::from_millis(5));
            assert!(begun.load(Ordering::SeqCst) <= taken + 3);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 13);
    }

    #[test]
    fn dropping_early_stops_the_threads() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = begun.clone();
        let mut items = Prefetch::new(1_000, 4, 2, move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst)
        });
        items.next();
        drop(items);
        // All threads are joined: only our clone is left.
        assert_eq!(Arc::strong_count(&begun), 1);
        assert!(begun.load(Ordering::SeqCst) <= 4);
    }

    #[test]
    fn a_panicking_job_is_one_missing_item_and_no_deadlock() {
        let items = Prefetch::new(4, 2, 2, |item, _| {
            assert_ne!(item, 2, "deliberate");
            item
        });
        assert_eq!(items.collect::<Vec<_>>(), [Some(0), Some(1), None, Some(3)]);
    }

    #[test]
    fn nothing_to_do_ends_at_once() {
        assert_eq!(Prefetch::new(0, 3, 2, |item, _| item).count(), 0);
    }
}
