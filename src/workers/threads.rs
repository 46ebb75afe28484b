//! Threads of one process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

use super::{Lost, Workers};

/// Workers of one process, one for each of `count` threads.
///
/// A worker that is dropped, by a panic say, while another waits for it counts as lost.
///
/// # Panics
///
/// If `count` is 0.
pub fn threads(count: usize) -> Vec<Arc<dyn Workers>> {
    assert!(count > 0, "threads: there is no worker, `count` is 0");
    connected(count, None)
}

/// Workers of one process, one for each of these devices, each in a thread of its own, with tensors
/// on that device alone. Embeddings and gradients move by Burn's collectives, which CUDA devices
/// have (NCCL); what is small moves through the host.
///
/// On devices without collectives use [`threads`], through the host.
///
/// # Panics
///
/// If there is no device.
pub fn devices(devices: Vec<Device>) -> Vec<Arc<dyn Workers>> {
    assert!(!devices.is_empty(), "devices: there is no device");
    connected(devices.len(), Some(devices.into()))
}

fn connected(count: usize, devices: Option<Arc<[Device]>>) -> Vec<Arc<dyn Workers>> {
    let hub = Arc::new(Hub {
        state: Mutex::new(State {
            round: 0,
            sent: vec![None; count],
            taken: 0,
            gone: vec![false; count],
        }),
        changed: Condvar::new(),
    });
    let worker = |rank| -> Arc<dyn Workers> {
        Arc::new(Thread {
            hub: hub.clone(),
            count,
            rank,
            devices: devices.clone(),
        })
    };
    (0..count).map(worker).collect()
}

/// One of the workers of [`threads`].
#[derive(Debug)]
pub struct Thread {
    hub: Arc<Hub>,
    count: usize,
    rank: usize,
    devices: Option<Arc<[Device]>>,
}

#[derive(Debug)]
struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

/// One exchange at a time: all send, then all take.
#[derive(Debug)]
struct State {
    /// How many exchanges are complete.
    round: usize,
    /// For each worker its parts, once it has sent them.
    sent: Vec<Option<Vec<Vec<u8>>>>,
    /// How many workers have taken what the others sent.
    taken: usize,
    gone: Vec<bool>,
}

impl Thread {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.hub
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while `busy`, unless a worker that has not sent yet is gone.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        busy: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, Lost> {
        while busy(&state) {
            let missing = |&k: &usize| state.gone[k] && state.sent[k].is_none();
            let ranks: Vec<_> = (0..self.count).filter(missing).collect();
            if !ranks.is_empty() {
                let count = self.count;
                return Err(Lost { ranks, count });
            }
            let woken = self.hub.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state)
    }
}

impl Workers for Thread {
    fn count(&self) -> usize {
        self.count
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn devices(&self) -> Option<&[Device]> {
        self.devices.as_deref()
    }

    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, Lost> {
        let (count, rank) = (self.count, self.rank);
        assert!(
            parts.len() == count,
            "Workers: {} parts for {count} workers",
            parts.len()
        );
        let parts = parts.iter().map(|part| part.to_vec()).collect();
        // Until all have taken what was sent last.
        let mut state = self.wait(self.lock(), |state| state.sent[rank].is_some())?;
        state.sent[rank] = Some(parts);
        self.hub.changed.notify_all();
        let round = state.round;
        let all_sent = |state: &State| state.sent.iter().all(Option::is_some);
        let mut state = self.wait(state, |state| state.round == round && !all_sent(state))?;
        let take = |sent: &mut Option<Vec<Vec<u8>>>| {
            let parts = sent.as_mut().expect("all have sent");
            std::mem::take(&mut parts[rank])
        };
        let received = state.sent.iter_mut().map(take).collect();
        state.taken += 1;
        if state.taken == count {
            state.sent.fill(None);
            state.taken = 0;
            state.round += 1;
            self.hub.changed.notify_all();
        }
        Ok(received)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.lock().gone[self.rank] = true;
        self.hub.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::workers::{Unequal, require_equal};

    /// What each worker makes of `f`, by rank.
    fn all<R: Send>(count: usize, f: impl Fn(Arc<dyn Workers>) -> R + Sync) -> Vec<R> {
        thread::scope(|scope| {
            let started: Vec<_> = threads(count)
                .into_iter()
                .map(|worker| scope.spawn(|| f(worker)))
                .collect();
            let joined = started.into_iter().map(|thread| thread.join().unwrap());
            joined.collect()
        })
    }

    proptest! {
        #[test]
        fn everyone_gets_what_was_sent_to_it(count in 1_usize..5, rounds in 1_u8..9) {
            all(count, |worker| {
                for round in 0..rounds {
                    let part = |to: usize| vec![round; worker.rank() * 10 + to];
                    let parts: Vec<_> = (0..count).map(part).collect();
                    let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
                    for (from, part) in worker.exchange(&parts).unwrap().into_iter().enumerate() {
                        assert_eq!(part, vec![round; from * 10 + worker.rank()]);
                    }
                }
                assert_eq!(worker.broadcast(&[worker.rank() as u8 + 5]).unwrap(), [5]);
                worker.barrier().unwrap();
            });
        }
    }

    #[test]
    fn a_worker_that_is_gone_is_named_by_all_others() {
        let found = all(4, |worker| {
            worker.barrier().unwrap();
            if worker.rank() == 2 {
                return None;
            }
            let lost = worker.barrier().unwrap_err();
            // And for good.
            assert_eq!(worker.barrier().unwrap_err(), lost);
            Some(lost)
        });
        for (rank, lost) in found.into_iter().enumerate() {
            let expected = Lost {
                ranks: vec![2],
                count: 4,
            };
            assert_eq!(lost, (rank != 2).then_some(expected));
        }
    }

    #[test]
    fn what_must_be_equal_is_refused_with_both_values() {
        let found = all(3, |worker| {
            require_equal(&*worker, "width", 7).unwrap();
            let seed = if worker.rank() == 1 { 5 } else { 4 };
            require_equal(&*worker, "seed", seed).unwrap_err()
        });
        for error in found {
            assert!(matches!(error, Unequal::Values { rank: 1, .. }));
            assert_eq!(
                error.to_string(),
                "all workers need the same seed: worker 1 has 5, worker 0 has 4"
            );
        }
    }
}
