//! An ordered, bounded, parallel map: worker threads compute items ahead of the consumer, which
//! receives them in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// Yields `job(0), job(1), …, job(total - 1)`, each computed on one of several threads.
///
/// At most `ahead` items are computed or waiting beyond those taken. Dropping it stops the threads
/// and waits for their jobs. An item whose job panics is `None`.
pub(super) struct Prefetch<T> {
    /// The items that have not been requested yet.
    left: Range<usize>,
    /// What the threads take their work from; `None` once they are to end.
    requests: Option<Sender<Request<T>>>,
    /// Where the results of the requests arrive, the next item's first.
    results: VecDeque<Receiver<Option<T>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// An item to compute, and where its result goes.
type Request<T> = (usize, Sender<Option<T>>);

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `workers` threads on `job`.
    pub(super) fn new(
        total: usize,
        workers: usize,
        ahead: usize,
        job: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Self {
        let (requests, work) = unbounded::<Request<T>>();
        let stop = Arc::<AtomicBool>::default();
        let job = Arc::new(job);
        let threads = (0..workers.clamp(1, total.max(1)))
            .map(|worker| {
                let (work, stop, job) = (work.clone(), stop.clone(), job.clone());
                let run = move || {
                    for (item, result) in work {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        // The receiver is gone only if the consumer is.
                        let _ = result.send(catch_unwind(AssertUnwindSafe(|| job(item))).ok());
                    }
                };
                thread::Builder::new()
                    .name(format!("loader-{worker}"))
                    .spawn(run)
                    .expect("the system starts a thread")
            })
            .collect();
        let mut prefetch = Self {
            left: 0..total,
            requests: Some(requests),
            results: VecDeque::new(),
            stop,
            threads,
        };
        for _ in 0..ahead.max(1) {
            prefetch.request();
        }
        prefetch
    }
}

impl<T> Prefetch<T> {
    /// Asks the threads for one more item, if there is one.
    fn request(&mut self) {
        if let (Some(item), Some(requests)) = (self.left.next(), &self.requests) {
            let (sender, receiver) = bounded(1);
            self.results.push_back(receiver);
            // The threads outlive the sender of requests.
            let _ = requests.send((item, sender));
        }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = Option<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.results.pop_front()?.recv().ok().flatten();
        self.request();
        Some(item)
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.requests = None;
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
    fn items_come_in_order_for_any_number_of_threads() {
        for workers in [1, 2, 7] {
            let items = Prefetch::new(50, workers, 3, |item| {
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
        let mut items = Prefetch::new(100, 4, 3, move |_| counter.fetch_add(1, Ordering::SeqCst));
        for taken in 1..=10 {
            items.next().unwrap().unwrap();
            thread::sleep(Duration::from_millis(5));
            assert!(begun.load(Ordering::SeqCst) <= taken + 3);
        }
        // The threads get there in their own time.
        while begun.load(Ordering::SeqCst) < 13 {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn dropping_early_stops_the_threads() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = begun.clone();
        let mut items = Prefetch::new(1_000, 4, 2, move |_| counter.fetch_add(1, Ordering::SeqCst));
        items.next();
        drop(items);
        // All threads are joined: only our clone is left.
        assert_eq!(Arc::strong_count(&begun), 1);
        assert!(begun.load(Ordering::SeqCst) <= 4);
    }

    #[test]
    fn a_panicking_job_is_one_missing_item_and_no_deadlock() {
        let items = Prefetch::new(4, 2, 2, |item| {
            assert_ne!(item, 2, "deliberate");
            item
        });
        assert_eq!(items.collect::<Vec<_>>(), [Some(0), Some(1), None, Some(3)]);
    }

    #[test]
    fn nothing_to_do_ends_at_once() {
        assert_eq!(Prefetch::new(0, 3, 2, |item| item).count(), 0);
    }
}
